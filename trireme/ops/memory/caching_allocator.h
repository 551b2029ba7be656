// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Puts a BlockCache under LibTorch: CPU tensors then live in memory that is reused from step to
// step, and process_memory() (memory_ledger.h) knows what it is used for.
//
//   install_caching_allocator();                     // at start
//   at::Tensor x = at::empty({1024, 1024});          // 4 MiB, entered as activations
#pragma once

#include "trireme/ops/memory/block_cache.h"

namespace trireme {

// Makes it LibTorch's CPU allocator for the rest of the process; again does nothing. Tensors that
// exist already keep their memory and free it as before. Call before other threads make tensors.
void install_caching_allocator();

// What lies below it; all zero until it is installed.
BlockCacheStats caching_allocator_stats();

// Gives memory that no tensor uses back to the system. Any thread.
void release_cached_memory();

}  // namespace trireme

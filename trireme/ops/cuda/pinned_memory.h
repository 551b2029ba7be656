// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Host memory at which CUDA devices read and write while the host goes on: pages that stay where
// they are. From memory that is not pinned a copy is no faster than through a buffer of the
// driver's, and the host waits for it.
#pragma once

#include <cstddef>

namespace trireme::ops::cuda {

// Pins the pages of [data, data + bytes), for all devices of the process; data starts a page, of
// heap or shared memory. Throws Error: the system pins no more.
void pin_memory(void* data, std::size_t bytes);
// Before the memory is freed; no copy may be under way in it.
void unpin_memory(void* data) noexcept;

}  // namespace trireme::ops::cuda

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Files of ranges' states, which make a snapshot (snapshot.h).
#pragma once

#include <string>

#include "trireme/ps/buffer_pool.h"
#include "trireme/ps/range_storage.h"

namespace trireme::ps {

// Writes the file, which must not exist, and waits until it lasts. Returns its digest. Throws
// CheckpointError.
std::string write_state_file(const std::string& path, const RangeStorage& storage);
// All of it, into memory of the pool. Throws CheckpointError for a file that is missing, or of
// another digest.
BufferPool::Buffer read_state_file(const std::string& path, const std::string& digest,
                                   BufferPool& buffers);

}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Copies between a caller's memory and shared memory.
#pragma once

#include <cstddef>
#include <cstring>

namespace trireme {

// Nothing is done for no bytes, from or to wherever.
inline void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

// The same past the caches: for output that is larger than they are and is not read again soon. The
// lines written are not read first, which is a third of a copy's traffic.
void stream_bytes(void* to, const void* from, std::size_t bytes);

}  // namespace trireme

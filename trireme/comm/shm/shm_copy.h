// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Copies between a caller's memory and shared memory.
#pragma once

#include <cstddef>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace trireme {

// Nothing is done for no bytes, from or to wherever.
inline void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

// The same past the caches: for output that is larger than they are and is not read again soon. The
// lines written are not read first, which is a third of a copy's traffic.
void stream_bytes(void* to, const void* from, std::size_t bytes);

// Its inner part, for many short copies: whole lines, to a multiple of 64. Not ordered with what
// tells others about them before stream_fence().
inline void stream_lines(void* to, const void* from, std::size_t bytes) {
#if defined(__SSE2__)
  auto* out = static_cast<__m128i*>(to);
  const auto* in = static_cast<const __m128i*>(from);
  for (std::size_t at = 0; at < bytes; at += 64, out += 4, in += 4) {
    __m128i line[4];
    for (int i = 0; i < 4; ++i) line[i] = _mm_loadu_si128(in + i);
    for (int i = 0; i < 4; ++i) _mm_stream_si128(out + i, line[i]);
  }
#else
  copy_bytes(to, from, bytes);
#endif
}
inline void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace trireme

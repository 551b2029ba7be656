// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_copy.h"

#include <algorithm>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace trireme {

void stream_bytes(void* to, const void* from, std::size_t bytes) {
#if defined(__SSE2__)
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  // Streaming stores want whole lines.
  const std::size_t head =
      std::min(bytes, static_cast<std::size_t>(-reinterpret_cast<std::uintptr_t>(out) & 63));
  copy_bytes(out, in, head);
  std::size_t at = head;
  for (; at + 64 <= bytes; at += 64) {
    __m128i line[4];
    for (int i = 0; i < 4; ++i) {
      line[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + at) + i);
    }
    for (int i = 0; i < 4; ++i) _mm_stream_si128(reinterpret_cast<__m128i*>(out + at) + i, line[i]);
  }
  copy_bytes(out + at, in + at, bytes - at);
  // Streaming stores are not ordered with what tells others about them.
  _mm_sfence();
#else
  copy_bytes(to, from, bytes);
#endif
}

}  // namespace trireme

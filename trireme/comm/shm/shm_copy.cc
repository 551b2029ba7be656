// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_copy.h"

#include <algorithm>
#include <cstdint>

namespace trireme {

void stream_bytes(void* to, const void* from, std::size_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  const std::size_t head =
      std::min(bytes, static_cast<std::size_t>(-reinterpret_cast<std::uintptr_t>(out) & 63));
  copy_bytes(out, in, head);
  const std::size_t lines = (bytes - head) / 64 * 64;
  stream_lines(out + head, in + head, lines);
  copy_bytes(out + head + lines, in + head + lines, bytes - head - lines);
  stream_fence();
}

}  // namespace trireme

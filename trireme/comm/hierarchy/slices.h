// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Ranges of buffers and of blocks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "trireme/comm/collective.h"

namespace trireme {

// The range in n parts, as equal as whole elements allow; the last ones may be short or empty.
inline std::vector<Block> cut_into(const Block& range, int n) {
  const std::int64_t size = (range.count + n - 1) / n;
  std::vector<Block> parts(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    const std::int64_t begin = std::min(range.count, i * size);
    parts[static_cast<std::size_t>(i)] = {range.offset + begin,
                                          std::min(size, range.count - begin)};
  }
  return parts;
}

// Piece `piece` of `size` elements of a block; may be empty.
inline Block piece_of(const Block& block, std::int64_t piece, std::int64_t size) {
  const std::int64_t begin = std::min(block.count, piece * size);
  return {block.offset + begin, std::min(size, block.count - begin)};
}

inline std::vector<Block> pieces_of(std::vector<Block> blocks, std::int64_t piece,
                                    std::int64_t size) {
  for (Block& block : blocks) block = piece_of(block, piece, size);
  return blocks;
}

inline Buffer slice(const Buffer& buffer, const Block& range) {
  auto* bytes = static_cast<std::byte*>(buffer.data) +
                range.offset * static_cast<std::int64_t>(dtype_bytes(buffer.dtype));
  return {bytes, range.count, buffer.dtype, buffer.cuda_device};
}

inline ConstBuffer slice(const ConstBuffer& buffer, const Block& range) {
  const auto* bytes = static_cast<const std::byte*>(buffer.data) +
                      range.offset * static_cast<std::int64_t>(dtype_bytes(buffer.dtype));
  return {bytes, range.count, buffer.dtype, buffer.cuda_device};
}

inline std::int64_t pieces_in(std::int64_t count, std::int64_t size) {
  return std::max<std::int64_t>(1, (count + size - 1) / size);
}

}  // namespace trireme

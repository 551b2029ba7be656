// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/flat_layout.h"

#include "trireme/base/check.h"

namespace trireme {

std::vector<ShardPiece> shard_pieces(std::span<const FlatSegment> segments, int rank, int size) {
  TRIREME_CHECK_LT(rank, size, "rank of a shard");
  std::vector<ShardPiece> pieces;
  std::int64_t local = 0;
  for (const FlatSegment& segment : segments) {
    TRIREME_CHECK_EQ(segment.begin % kShardBlock, 0, "a segment begins at a block");
    TRIREME_CHECK_EQ(segment.end % kShardBlock, 0, "a segment ends at a block");
    const std::int64_t blocks = (segment.end - segment.begin) / kShardBlock;
    const std::int64_t begin = segment.begin + blocks * rank / size * kShardBlock;
    const std::int64_t end = segment.begin + blocks * (rank + 1) / size * kShardBlock;
    pieces.push_back({begin, end, local});
    local += end - begin;
  }
  return pieces;
}

std::int64_t shard_size(std::span<const ShardPiece> pieces) {
  return pieces.empty() ? 0 : pieces.back().local_begin + pieces.back().count();
}

}  // namespace trireme

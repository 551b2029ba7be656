// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where the parameters of a model lie in flat buffers, and how the ranks of a group share them.
//
// A flat buffer is a row of blocks of kShardBlock elements. Units (subtrees of the model) begin at
// a block, parameters inside of a unit at a multiple of kAlignment; the gaps are zeros and stay
// zeros. A segment is a run of blocks that travels together: a bucket of gradients, or a unit. Each
// segment is cut among the ranks at blocks; what a rank gets of it is a piece, and all its pieces
// are its shard. The layout depends on no number of ranks, and sums over blocks (the norm of the
// gradients, the norms of LAMB) are made of the same parts whoever holds them.
//
//   segment 0: blocks 0 1 2 3 4, two ranks     rank 0: {0 1}  rank 1: {2 3 4}
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace trireme {

inline constexpr std::int64_t kShardBlock = 4096;  // elements

// Where one parameter lies in the flat buffers.
struct FlatEntry {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;  // elements, a multiple of FlatParameters::kAlignment
  std::int64_t count = 0;   // elements; the gap up to the next entry is zero and stays zero
};

// Elements [begin, end); both multiples of kShardBlock.
struct FlatSegment {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// Elements [begin, end) of the flat buffer, and where they begin in this rank's shard.
struct ShardPiece {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t local_begin = 0;
  std::int64_t count() const { return end - begin; }
};

// What rank holds of the segments (ascending, disjoint), one piece for each, which may be empty:
// blocks [B rank / size, B (rank + 1) / size) of a segment of B blocks.
std::vector<ShardPiece> shard_pieces(std::span<const FlatSegment> segments, int rank, int size);
// Elements of all pieces.
std::int64_t shard_size(std::span<const ShardPiece> pieces);

}  // namespace trireme

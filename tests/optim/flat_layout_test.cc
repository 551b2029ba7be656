// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/flat_layout.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <vector>

#include "trireme/base/error.h"

namespace trireme {
namespace {

constexpr std::int64_t kB = kShardBlock;

void expect_piece(const ShardPiece& piece, std::int64_t begin, std::int64_t end,
                  std::int64_t local_begin) {
  EXPECT_EQ(piece.begin, begin * kB);
  EXPECT_EQ(piece.end, end * kB);
  EXPECT_EQ(piece.local_begin, local_begin * kB);
}

TEST(ShardPieces, AreCutAsTheHeaderDraws) {
  const std::vector<FlatSegment> one{{0, 5 * kB}};
  expect_piece(shard_pieces(one, 0, 2).at(0), 0, 2, 0);
  expect_piece(shard_pieces(one, 1, 2).at(0), 2, 5, 0);
  const std::vector<FlatSegment> two{{kB, 8 * kB}, {9 * kB, 10 * kB}};
  const auto last = shard_pieces(two, 2, 3);
  expect_piece(last.at(0), 5, 8, 0);
  expect_piece(last.at(1), 9, 10, 3);
  EXPECT_EQ(shard_size(last), 4 * kB);
  const auto middle = shard_pieces(two, 1, 3);
  expect_piece(middle.at(0), 3, 5, 0);
  EXPECT_EQ(middle.at(1).count(), 0) << "one block for three ranks";
  EXPECT_EQ(shard_size(middle), 2 * kB);
  EXPECT_EQ(shard_size({}), 0);
}

TEST(ShardPieces, CoverEverySegmentInRankOrderAndDifferByABlock) {
  EXPECT_TRUE(rc::check([] {
    std::vector<FlatSegment> segments;
    std::int64_t at = 0;
    const int count = *rc::gen::inRange(1, 9);
    for (int i = 0; i < count; ++i) {
      const std::int64_t begin = at + *rc::gen::inRange(0, 3) * kB;
      at = begin + *rc::gen::inRange(0, 50) * kB;
      segments.push_back({begin, at});
    }
    const int size = *rc::gen::inRange(1, 10);
    std::vector<std::int64_t> ends, local(static_cast<std::size_t>(size));
    for (const FlatSegment& segment : segments) ends.push_back(segment.begin);
    for (int rank = 0; rank < size; ++rank) {
      const auto pieces = shard_pieces(segments, rank, size);
      RC_ASSERT(pieces.size() == segments.size());
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        RC_ASSERT(pieces[i].begin == ends[i]);
        RC_ASSERT(pieces[i].end >= pieces[i].begin);
        RC_ASSERT(pieces[i].end % kB == 0);
        RC_ASSERT(pieces[i].local_begin == local[static_cast<std::size_t>(rank)]);
        const std::int64_t even = (segments[i].end - segments[i].begin) / kB / size * kB;
        RC_ASSERT(pieces[i].count() == even || pieces[i].count() == even + kB);
        ends[i] = pieces[i].end;
        local[static_cast<std::size_t>(rank)] += pieces[i].count();
      }
      RC_ASSERT(shard_size(pieces) == local[static_cast<std::size_t>(rank)]);
    }
    for (std::size_t i = 0; i < segments.size(); ++i) RC_ASSERT(ends[i] == segments[i].end);
  }));
}

TEST(ShardPieces, RefuseWhatIsNotCutAtBlocks) {
  const std::vector<FlatSegment> begins_inside{{kB / 2, kB}};
  const std::vector<FlatSegment> ends_inside{{0, kB + 64}};
  const std::vector<FlatSegment> good{{0, kB}};
  EXPECT_THROW(shard_pieces(begins_inside, 0, 1), InternalError);
  EXPECT_THROW(shard_pieces(ends_inside, 0, 1), InternalError);
  EXPECT_THROW(shard_pieces(good, 2, 2), InternalError);
}

}  // namespace
}  // namespace trireme

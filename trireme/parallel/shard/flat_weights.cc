// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/flat_weights.h"

#include <utility>

#include "trireme/comm/group.h"
#include "trireme/parallel/shard/segment_counts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

FlatWeights::FlatWeights(FlatParameters& flat, at::Tensor masters, Group& group,
                         WeightStoreOptions options)
    : flat_(flat),
      masters_(std::move(masters)),
      options_(std::move(options)),
      group_(group),
      pieces_(options_.sharded_optimizer
                  ? shard_pieces(options_.segments, group.rank(), group.size())
                  : shard_pieces(options_.segments, 0, 1)) {}

std::vector<WeightStore::Piece> FlatWeights::pieces() {
  std::vector<Piece> result;
  for (const ShardPiece& piece : pieces_) {
    const at::Tensor own = flat_.data().narrow(0, piece.begin, piece.count());
    result.push_back(masters_.defined()
                         ? Piece{masters_.narrow(0, piece.local_begin, piece.count()), own}
                         : Piece{own, {}});
  }
  return result;
}

void FlatWeights::publish() {
  if (!options_.sharded_optimizer || group_.size() == 1) return;
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const FlatSegment& segment = options_.segments[i];
    if (segment.begin == segment.end) continue;
    const ShardPiece& piece = pieces_[i];
    group_.all_gather(
        buffer_of_tensor(flat_.data().narrow(0, piece.begin, piece.count())),
        buffer_of_tensor(flat_.data().narrow(0, segment.begin, segment.end - segment.begin)),
        segment_counts(segment, group_.size()));
  }
}

}  // namespace trireme

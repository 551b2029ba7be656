// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/reduced_gradients.h"

#include <ATen/core/grad_mode.h>

#include "trireme/comm/group.h"
#include "trireme/parallel/shard/segment_counts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

ReducedGradients::ReducedGradients(FlatParameters& flat, Group& group,
                                   const ReducerOptions& options, bool scatter)
    : flat_(flat),
      scatter_(scatter),
      reducer_(flat, group, options,
               [this](Group& wire, std::size_t bucket, const at::Tensor& gradients) {
                 if (scatter_) return scatter_bucket(wire, bucket, gradients);
                 wire.all_reduce(buffer_of_tensor(gradients));
               }),
      pieces_(scatter ? shard_pieces(reducer_.buckets(), group.rank(), group.size())
                      : shard_pieces(reducer_.buckets(), 0, 1)) {}

// In place: the piece is this rank's block of the bucket.
void ReducedGradients::scatter_bucket(Group& wire, std::size_t bucket,
                                      const at::Tensor& gradients) const {
  const FlatSegment& segment = segments()[bucket];
  const ShardPiece piece = shard_pieces(std::span(&segment, 1), wire.rank(), wire.size()).front();
  wire.reduce_scatter(
      buffer_of_tensor(gradients),
      buffer_of_tensor(gradients.narrow(0, piece.begin - segment.begin, piece.count())),
      ReduceOp::kSum, segment_counts(segment, wire.size()));
}

std::vector<at::Tensor> ReducedGradients::pieces() {
  std::vector<at::Tensor> result;
  for (const ShardPiece& piece : pieces_) {
    result.push_back(flat_.grad().narrow(0, piece.begin, piece.count()));
  }
  return result;
}

void ReducedGradients::clear(bool pieces_are_zeros) {
  const at::NoGradGuard no_grad;
  if (!pieces_are_zeros) return flat_.zero_grad();
  std::int64_t done = 0;
  for (const ShardPiece& piece : pieces_) {
    if (piece.begin > done) flat_.grad().narrow(0, done, piece.begin - done).zero_();
    done = piece.end;
  }
  if (done < flat_.size()) flat_.grad().narrow(0, done, flat_.size() - done).zero_();
}

}  // namespace trireme

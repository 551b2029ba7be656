// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/shard_groups.h"

#include <fmt/format.h>

#include "trireme/parallel/shard/segment_counts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

ShardGroups::ShardGroups(Group& all, const ShardPlan& plan, const std::string& purpose)
    : plan_(plan) {
  if (plan_.replicas() == 1) return;
  const int rank = all.rank();
  shard_ = all.split(fmt::format("{} shard {}", purpose, plan_.replica_of(rank)),
                     plan_.shard_group(rank));
  replicas_ = all.split(fmt::format("{} replicas {}", purpose, plan_.index_of(rank)),
                        plan_.replica_group(rank));
}

void ShardGroups::scatter(Group& all, const FlatSegment& segment, const at::Tensor& gradients,
                          const at::Tensor& piece) const {
  Group& group = shard(all);
  group.reduce_scatter(buffer_of_tensor(gradients), buffer_of_tensor(piece), ReduceOp::kSum,
                       segment_counts(segment, group.size()));
}

void ShardGroups::add_replicas(const at::Tensor& piece) const {
  if (replicas_ && piece.numel() > 0) replicas_->all_reduce(buffer_of_tensor(piece));
}

std::int64_t ShardGroups::bytes_sent() const {
  return bytes_sent_between_replicas() + (shard_ ? shard_->bytes_sent() : 0);
}

std::int64_t ShardGroups::bytes_sent_between_replicas() const {
  return replicas_ ? replicas_->bytes_sent() : 0;
}

}  // namespace trireme

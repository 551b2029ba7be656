// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ReducedGradients: every rank sums all gradients of its micro-batches before anything travels
// (stages 0 and 1). What arrives is the whole sum (all_reduce), or this rank's pieces of it
// (reduce_scatter inside its shard group, then an all_reduce of the pieces between copies).
#pragma once

#include <vector>

#include "trireme/parallel/gradient_reducer.h"
#include "trireme/parallel/shard/gradient_store.h"
#include "trireme/parallel/shard/shard_groups.h"

namespace trireme {

class ReducedGradients final : public GradientStore {
 public:
  ReducedGradients(FlatParameters& flat, Group& group, const ShardPlan& plan,
                   const ReducerOptions& options, bool scatter);

  const std::vector<FlatSegment>& segments() const { return reducer_.buckets(); }

  const std::vector<std::int64_t>& micro_batches() const override {
    return reducer_.micro_batches();
  }
  void backward(const at::Tensor& loss, double weight) override { reducer_.backward(loss, weight); }
  void add(double weight, const std::function<void()>& f) override { reducer_.add(weight, f); }
  void finish() override { reducer_.finish(); }
  std::vector<at::Tensor> pieces() override;
  void clear(bool pieces_are_zeros) override;
  const StepReport& report() const override { return reducer_.report(); }
  std::int64_t bytes_sent() override { return reducer_.bytes_sent() + groups_.bytes_sent(); }
  std::int64_t bytes_sent_between_replicas() override {
    return groups_.bytes_sent_between_replicas();
  }

 private:
  void scatter_bucket(Group& wire, std::size_t bucket, const at::Tensor& gradients) const;

  FlatParameters& flat_;
  const bool scatter_;
  const ShardGroups groups_;  // of the communication thread
  GradientReducer reducer_;
  const std::vector<ShardPiece> pieces_;
};

}  // namespace trireme

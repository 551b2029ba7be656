// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// TrainedPart: parameters of a chunk of the model that lie in one flat buffer, shared among the
// ranks that have the same (parallel/shard/sharded_model.h), with their optimizer and their
// average.
//
// Most ranks have one. A pipeline's has one for each of its stages, and one more for the head's
// matrix, whose gradients come at another time than those of the blocks before it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/optim/optimizer.h"
#include "trireme/optim/weight_average.h"
#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/parallel/whole_layout.h"
#include "trireme/train/model_chunk.h"

namespace trireme {

// Not thread-safe. All ranks of the groups make one alike and call its functions in the same order.
class TrainedPart {
 public:
  // Of the parameters that pass the filter (empty: all). The chunk and the groups outlive it.
  // Throws as ShardedModel does.
  TrainedPart(ModelChunk& chunk, const TrainConfig& config, const ParallelGroups& groups,
              const ParameterFilter& filter = {});

  ShardedModel& sharded() { return sharded_; }
  optim::Optimizer& optimizer() { return *optimizer_; }

  // The part's tensors of a checkpoint of the whole model; with_optimizer: its state and the
  // average, too, else that begins at these weights. Collective, blocking. Throws as
  // load_weights() does.
  void load(const Checkpoint& checkpoint, bool with_optimizer);
  // One update of the weights and their average. Collective, blocking.
  void step(double learning_rate, double scale);
  // The average in the place of the weights, and back; nothing without one. Collective, blocking.
  void swap_average();

  // What a checkpoint holds of the part: flat f32 buffers as whole() lays them out, of whole
  // parameters, on rank 0 of the ranks that have this part; undefined elsewhere. Collective over
  // these, blocking.
  const ModuleLayout& whole() const { return whole_.layout(); }
  at::Tensor gather_weights();
  at::Tensor gather_average();  // which there is
  // Elementwise values gathered, the others as they are.
  std::vector<optim::OptimizerState> gather_state();
  bool has_average() const { return average_.has_value(); }
  std::int64_t average_updates() const { return average_->updates(); }

 private:
  at::Tensor put_together(const at::Tensor& parts) const;
  at::Tensor gather_elements(const optim::OptimizerState& part);

  ShardedModel sharded_;
  const WholeLayout whole_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  const double average_decay_;
  const bool is_stage_;  // there are other parts
  std::optional<optim::WeightAverage> average_;
};

}  // namespace trireme

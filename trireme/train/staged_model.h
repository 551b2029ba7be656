// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StagedModel: a model read back from a checkpoint, whose layers the ranks of a group have between
// them: for models that do not fit into one process.
//
//   StagedModel model("runs/first", SavedWeights::kLast, *world);
//   logits_BV = model.decode(tokens_BT, true);   // the same on all ranks
//
// A rank reads and keeps its own layers alone, a run of blocks that is as long to compute as
// others'; values go from rank to rank, and what the last makes of them to all.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "trireme/comm/group.h"
#include "trireme/nn/kv_cache.h"
#include "trireme/train/batch_loader.h"
#include "trireme/train/saved_model.h"

namespace trireme {

// Throws CheckpointError and ConfigError as a StagedModel of so many ranks would, reading no
// weights.
void check_stages(const std::string& path, int ranks);

// Not thread-safe. All ranks make one alike and call its functions with the same values. f32, on
// the CPU. The functions are collective and block; throw CommError.
class StagedModel {
 public:
  // A group of one has all of the model. Throws as load_saved_model() does; ConfigError for a model
  // with fewer blocks than ranks.
  StagedModel(const std::string& path, SavedWeights weights, Group& group);

  const SavedModel& saved() const { return saved_; }

  // As TransformerImpl::decode(). restart: the tokens are the first.
  at::Tensor decode(const at::Tensor& tokens_BT, bool restart);
  // Mean over the tokens, without gradient.
  double loss(const MicroBatch& batch);

 private:
  at::Tensor receive(const at::Tensor& tokens_BT) const;
  void send(const at::Tensor& hidden) const;
  bool is_last() const { return group_->rank() + 1 == group_->size(); }

  std::unique_ptr<Group> group_;
  SavedModel saved_;
  nn::KvCache cache_;
};

}  // namespace trireme

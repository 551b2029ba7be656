// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ModelChunk: the layers that a rank computes with, all of the model or a stage of a pipeline, cut
// across the ranks that compute them together (parallel/: tensor/parallelize.h,
// context/context_parallel.h, expert/expert_parallel.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trireme/nn/transformer.h"
#include "trireme/parallel/context/context_parallel.h"
#include "trireme/parallel/expert/expert_parallel.h"
#include "trireme/parallel/model_parts.h"
#include "trireme/parallel/module_layout.h"
#include "trireme/parallel/tensor/parallelize.h"
#include "trireme/train/batch_loader.h"
#include "trireme/train/parallel_groups.h"
#include "trireme/train/train_config.h"

namespace trireme {

// Not thread-safe. Neither movable nor copied.
class ModelChunk {
 public:
  // config.model resolved. Gives the layers, or this rank's part of them, memory and the values of
  // nn::initialize(seed); without a seed whatever memory holds. Collective over the groups. Throws
  // as parallelize() and its like do.
  ModelChunk(const TrainConfig& config, const nn::TransformerPart& part,
             const ParallelGroups& groups, std::optional<std::uint64_t> seed);

  nn::TransformerImpl& model() { return *model_; }
  const nn::TransformerImpl& model() const { return *model_; }
  // What its ranks know of the parameters that pass the filter; empty: of all.
  ModelParts parts(const ParameterFilter& filter) const;
  bool sequence() const { return tensor_ && tensor_->sequence(); }

  // Of a part with the head: the mean loss over the tokens, or of cp's ranks those of the tokens of
  // each, which sum up to it. hidden: what the part before made; undefined: of the batch's tokens.
  at::Tensor loss(const MicroBatch& batch, const at::Tensor& hidden = {});
  // Of a part without: what the next one wants.
  nn::PartOutput hidden(const MicroBatch& batch, const at::Tensor& hidden = {});
  // What loss() is multiplied by, to be this rank's share of the mean: 1 but with cp.
  double share() const { return share_; }
  // Payload that this rank has sent so far for activations that are cut or summed.
  std::int64_t activation_bytes_sent() const;

 private:
  // The batch as this rank has it, with the model told of it.
  MicroBatch begin_pass(const MicroBatch& batch);

  nn::Transformer model_;
  std::optional<ContextParallel> context_;
  std::optional<ExpertParallel> experts_;
  std::optional<TensorParallel> tensor_;
  Group* parts_group_;
  double share_ = 1;
};

// Weights by nn::initialize(seed), or whatever memory holds; in the ledger's weights.
nn::Transformer initialized_model(const nn::ModelConfig& config, std::optional<std::uint64_t> seed);
// The model's loss of a batch; where gradients are enabled, with dropout.
at::Tensor loss_of(nn::TransformerImpl& model, const MicroBatch& batch);
// What a run's config says of dropout.
nn::DropoutConfig dropout_config(const TrainConfig& config);
// All parameters, or buffers, of the model by name, in the order in which a rank that has all of it
// lays them out (module_layout.h). Takes no memory.
std::vector<std::string> parameter_names(const nn::ModelConfig& config);
std::vector<std::string> buffer_names(const nn::ModelConfig& config);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/model_chunk.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "trireme/comm/group.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

nn::Transformer model_without_memory(const nn::ModelConfig& config,
                                     const nn::TransformerPart& part = {}) {
  const nn::ParametersWithoutMemory later;
  return nn::Transformer(config, part);
}

}  // namespace

nn::Transformer initialized_model(const nn::ModelConfig& config,
                                  std::optional<std::uint64_t> seed) {
  const MemoryScope scope(MemoryCategory::kWeights);
  nn::Transformer model(config);
  if (seed) nn::initialize(*model, *seed);
  return model;
}

at::Tensor loss_of(nn::TransformerImpl& model, const MicroBatch& batch) {
  model.set_first_sample(at::GradMode::is_enabled() ? batch.first_sample : -1);
  return model.loss(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT);
}

nn::DropoutConfig dropout_config(const TrainConfig& config) {
  return {.share = config.train.dropout, .seed = static_cast<std::uint64_t>(config.seed)};
}

std::vector<std::string> parameter_names(const nn::ModelConfig& config) {
  const nn::Transformer model = model_without_memory(config);
  return names_of(make_layout(*model, model->blocks()).entries);
}

std::vector<std::string> buffer_names(const nn::ModelConfig& config) {
  std::vector<std::string> names;
  for (const auto& item : model_without_memory(config)->named_buffers()) {
    names.push_back(item.key());
  }
  return names;
}

ModelChunk::ModelChunk(const TrainConfig& config, const nn::TransformerPart& part,
                       const ParallelGroups& groups, std::optional<std::uint64_t> seed)
    : model_(model_without_memory(config.model, part)), parts_group_(groups.parts()) {
  const MemoryScope scope(MemoryCategory::kWeights);
  const ParallelConfig& parallel = config.parallel;
  if (groups.experts() != nullptr) {
    experts_.emplace(expert_parallel(*model_, *groups.experts()));
  }
  if (groups.tensor() != nullptr) {
    tensor_.emplace(parallelize(
        *model_, *groups.tensor(),
        {.sequence = parallel.sequence, .chunks = static_cast<int>(parallel.tp_chunks)}));
  }
  if (groups.context() != nullptr) {
    context_.emplace(context_parallel(*model_, *groups.context(), {.method = parallel.cp_method}));
  }
  nn::give_memory(*model_);
  if (seed) nn::initialize(*model_, *seed);
  model_->set_recompute(config.compute.recompute_mode());
  model_->set_dropout(dropout_config(config));
}

ModelParts ModelChunk::parts(const ParameterFilter& filter) const {
  ModelParts parts = joined(tensor_ ? tensor_->parts() : ModelParts(),
                            experts_ ? experts_->parts() : ModelParts(), parts_group_);
  if (!filter) return parts;
  const auto drop_others = [&](std::vector<std::string>& names) {
    std::erase_if(names, [&](const std::string& name) { return !filter(name); });
  };
  for (PartialGradients& partial : parts.partial) drop_others(partial.parameters);
  std::erase_if(parts.partial, [](const auto& partial) { return partial.parameters.empty(); });
  drop_others(parts.counted_elsewhere);
  return parts;
}

MicroBatch ModelChunk::begin_pass(const MicroBatch& batch) {
  model_->set_first_sample(at::GradMode::is_enabled() ? batch.first_sample : -1);
  MicroBatch own = batch;
  if (context_) {
    const ContextBatch cut =
        context_->cut(batch.inputs_BT, batch.targets_BT, batch.document_starts_BT);
    own.inputs_BT = cut.tokens_BT;
    own.targets_BT = cut.targets_BT;
    own.document_starts_BT = cut.document_starts_BT;
    share_ = cut.weight;
  }
  if (model_->part().embedding) return own;
  const std::int64_t sequences = own.inputs_BT.size(0), tokens = own.inputs_BT.size(1);
  model_->set_shape(sequences, tokens);
  if (tensor_) tensor_->begin_pass(sequences * tokens);
  return own;
}

at::Tensor ModelChunk::loss(const MicroBatch& batch, const at::Tensor& hidden) {
  const MicroBatch own = begin_pass(batch);
  const at::Tensor loss = model_->loss(hidden.defined() ? hidden : own.inputs_BT, own.targets_BT,
                                       own.document_starts_BT);
  return context_ ? loss * share_ : loss;
}

nn::PartOutput ModelChunk::hidden(const MicroBatch& batch, const at::Tensor& hidden) {
  const MicroBatch own = begin_pass(batch);
  nn::PartOutput output =
      model_->hidden(hidden.defined() ? hidden : own.inputs_BT, own.document_starts_BT);
  if (context_ && output.routing_loss.defined()) {
    output.routing_loss = output.routing_loss * share_;
  }
  return output;
}

std::int64_t ModelChunk::activation_bytes_sent() const {
  return (tensor_ ? tensor_->group().bytes_sent() : 0) +
         (context_ ? context_->group().bytes_sent() : 0) + (experts_ ? experts_->bytes_sent() : 0);
}

}  // namespace trireme

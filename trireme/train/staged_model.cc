// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/staged_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <span>

#include "trireme/parallel/tensor_buffer.h"
#include "trireme/train/model_state.h"
#include "trireme/train/pipeline_plan.h"

namespace trireme {

void check_stages(const std::string& path, int ranks) {
  forward_stages(checkpoint_model_config(Checkpoint::open(resolve_checkpoint(path))), ranks);
}

StagedModel::StagedModel(const std::string& path, SavedWeights weights, Group& group)
    : group_(group.duplicate("stages")),
      saved_(load_saved_model(path, weights, [&](const nn::ModelConfig& config) {
        return forward_stages(config, group.size())[static_cast<std::size_t>(group.rank())];
      })) {}

// What the rank before sends; of the first the tokens.
at::Tensor StagedModel::receive(const at::Tensor& tokens_BT) const {
  if (group_->rank() == 0) return tokens_BT;
  const at::Tensor hidden =
      at::empty({tokens_BT.size(0), tokens_BT.size(1), saved_.model->config().width},
                at::TensorOptions(at::kFloat));
  group_->recv(buffer_of_tensor(hidden), group_->rank() - 1);
  return hidden;
}

void StagedModel::send(const at::Tensor& hidden) const {
  group_->send(buffer_of_tensor(hidden.contiguous()), group_->rank() + 1);
}

at::Tensor StagedModel::decode(const at::Tensor& tokens_BT, bool restart) {
  if (restart) cache_ = nn::KvCache();
  nn::Transformer model = saved_.model;
  at::Tensor made = model->decode(receive(tokens_BT), cache_);
  if (!is_last()) {
    send(made);
    made =
        at::empty({tokens_BT.size(0), model->config().vocab_size}, at::TensorOptions(at::kFloat));
  }
  made = made.contiguous();
  if (group_->size() > 1) group_->broadcast(buffer_of_tensor(made), group_->size() - 1);
  return made;
}

double StagedModel::loss(const MicroBatch& batch) {
  const at::NoGradGuard no_grad;
  nn::Transformer model = saved_.model;
  const at::Tensor input = receive(batch.inputs_BT);
  double loss = 0;
  if (is_last()) {
    loss = model->loss(input, batch.targets_BT, batch.document_starts_BT).item<double>();
  } else {
    send(model->hidden(input, batch.document_starts_BT).hidden);
  }
  if (group_->size() > 1) group_->broadcast(buffer_of(std::span(&loss, 1)), group_->size() - 1);
  return loss;
}

}  // namespace trireme

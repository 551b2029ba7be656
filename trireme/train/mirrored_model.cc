// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/mirrored_model.h"

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/model_agreement.h"
#include "trireme/train/named_weights.h"

namespace trireme {
namespace {

const OptimizerRecipe& checked(const OptimizerRecipe& recipe) {
  if (!recipe.make_replicated) {
    throw_error<ConfigError>(
        "ShardedOptimizer works under ShardedStrategy: take Sgd, Adam, AdamW or TorchOptimizer");
  }
  return recipe;
}

class MirroredModel : public SpreadModel {
 public:
  MirroredModel(torch::nn::Module& module, Group& group, const OptimizerRecipe& recipe,
                const ReplicaOptions& options)
      : module_(module),
        group_(group),
        num_micro_batches_(options.micro_batches),
        replica_(module, group, options),
        optimizer_(checked(recipe).make_replicated(module.parameters())) {}

  std::int64_t num_micro_batches() const override { return num_micro_batches_; }
  const std::vector<std::int64_t>& micro_batches() const override {
    return replica_.micro_batches();
  }
  at::Tensor forward(const std::function<at::Tensor()>& f) override { return f(); }
  void begin_step() override { optimizer_->zero_grad(); }
  void backward(const at::Tensor& loss, double weight) override { replica_.backward(loss, weight); }
  void finish_step() override {
    replica_.finish_gradients();
    optimizer_->step();
  }
  NamedTensors gather_weights() override { return named_weights(module_); }
  void give_back() override {}  // they always are
  void set_weights(const NamedTensors& values) override {
    if (group_.rank() == 0) assign_weights(values, named_weights(module_));
    broadcast_model(group_, module_);
  }

 private:
  torch::nn::Module& module_;
  Group& group_;
  std::int64_t num_micro_batches_;
  Replica replica_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

}  // namespace

std::unique_ptr<SpreadModel> make_mirrored_model(torch::nn::Module& module, Group& group,
                                                 const OptimizerRecipe& recipe,
                                                 const ReplicaOptions& options) {
  return std::make_unique<MirroredModel>(module, group, recipe, options);
}

}  // namespace trireme

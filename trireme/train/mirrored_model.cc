// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/mirrored_model.h"

#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/optim/weight_average.h"
#include "trireme/parallel/flat_parameters.h"
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
                const ReplicaOptions& options, double average_decay)
      : module_(module),
        group_(group),
        num_micro_batches_(options.micro_batches),
        replica_(module, group, options),
        optimizer_(checked(recipe).make_replicated(module.parameters())),
        average_decay_(average_decay) {
    start_average();
  }

  std::int64_t num_micro_batches() const override { return num_micro_batches_; }
  const std::vector<std::int64_t>& micro_batches() const override {
    return replica_.micro_batches();
  }
  at::Tensor forward(const std::function<at::Tensor()>& f) override { return f(); }
  void begin_step() override { optimizer_->zero_grad(); }
  void backward(const at::Tensor& loss, double weight) override { replica_.backward(loss, weight); }
  void finish_gradients(std::vector<double>& extras) override {
    replica_.finish_gradients();
    if (!extras.empty()) sums_.sum(extras, 1);
  }
  WorkerSums& sums() override { return sums_; }
  // f64 gradients as f32: block sums have the same bits on all ranks.
  double gradient_norm() override {
    return optim::global_norm(replica_.flat().grad().to(at::kFloat));
  }
  void finish_step(optim::StepVerdict verdict) override {
    if (verdict != optim::StepVerdict::kApply) {
      replica_.flat().grad().zero_();
      return;
    }
    optimizer_->step();
    if (average_) average_->update(pieces());
  }
  void use_average(bool average) override {
    if (average_ && average_->swapped() != average) average_->swap(pieces());
  }
  NamedTensors gather_weights() override { return named_weights(module_); }
  void give_back() override {}  // they always are
  void set_weights(const NamedTensors& values) override {
    if (group_.rank() == 0) assign_weights(values, named_weights(module_));
    broadcast_model(group_, module_);
    start_average();
  }

 private:
  // All weights that are trained, in one buffer.
  std::array<optim::PieceUpdate, 1> pieces() const { return {{{replica_.flat().data()}}}; }
  void start_average() {
    if (average_decay_ == 0) return;
    if (const at::ScalarType dtype = replica_.flat().data().scalar_type(); dtype != at::kFloat) {
      throw_error<ConfigError>(
          "average_decay is {}, but the model is {}, and averages are of f32 weights: leave it at "
          "0, or make the model f32",
          average_decay_, c10::toString(dtype));
    }
    average_.emplace(average_decay_, pieces());
  }

  torch::nn::Module& module_;
  Group& group_;
  GroupSums sums_{group_};
  std::int64_t num_micro_batches_;
  Replica replica_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
  double average_decay_;
  std::optional<optim::WeightAverage> average_;
};

}  // namespace

std::unique_ptr<SpreadModel> make_mirrored_model(torch::nn::Module& module, Group& group,
                                                 const OptimizerRecipe& recipe,
                                                 const ReplicaOptions& options,
                                                 double average_decay) {
  return std::make_unique<MirroredModel>(module, group, recipe, options, average_decay);
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/zero_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/optim/weight_average.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/tensor_buffer.h"
#include "trireme/train/named_weights.h"
#include "trireme/train/sequential_units.h"

namespace trireme {
namespace {

torch::nn::Module& checked(torch::nn::Module& module, const OptimizerRecipe& recipe) {
  if (!recipe.config) {
    throw_error<ConfigError>(
        "an optimizer of torch::optim does not work on shards: take Sgd, Adam, AdamW or "
        "ShardedOptimizer, or MirroredStrategy");
  }
  for (const auto& item : module.named_parameters()) {
    if (item.value().scalar_type() != at::kFloat) {
      throw_error<ConfigError>("{} is {}: sharded models are f32", item.key(),
                               c10::toString(item.value().scalar_type()));
    }
  }
  return module;
}

class ZeroModel : public SpreadModel {
 public:
  ZeroModel(torch::nn::Module& module, Group& group, const OptimizerRecipe& recipe,
            const ShardOptions& options, double average_decay)
      : module_(checked(module, recipe)),
        group_(group),
        num_micro_batches_(options.micro_batches),
        learning_rate_(recipe.learning_rate),
        sharded_(module, group, options),
        runner_(module, options.units, sharded_),
        optimizer_(recipe.make_sharded(sharded_.space())),
        average_decay_(average_decay) {
    start_average();
  }

  std::int64_t num_micro_batches() const override { return num_micro_batches_; }
  const std::vector<std::int64_t>& micro_batches() const override {
    return sharded_.micro_batches();
  }
  at::Tensor forward(const std::function<at::Tensor()>& f) override { return sharded_.forward(f); }
  void begin_step() override {}  // finish_step() leaves zeros
  void backward(const at::Tensor& loss, double weight) override { sharded_.backward(loss, weight); }
  void finish_gradients(std::vector<double>& extras) override {
    sharded_.finish_gradients();
    if (!extras.empty()) sums_.sum(extras, 1);
  }
  WorkerSums& sums() override { return sums_; }
  double gradient_norm() override { return sharded_.gradient_norm() / sharded_.report().weight; }
  void finish_step(optim::StepVerdict verdict) override {
    if (verdict != optim::StepVerdict::kApply) return sharded_.drop_gradients();
    sharded_.step(*optimizer_, learning_rate_, 1 / sharded_.report().weight);
    if (average_) average_->update(sharded_.pieces());
  }
  void use_average(bool average) override {
    if (!average_ || average_->swapped() == average) return;
    average_->swap(sharded_.pieces());
    sharded_.publish_weights(optimizer_.get());
  }
  NamedTensors gather_weights() override {
    const at::Tensor whole = sharded_.gather_weights();
    return group_.rank() == 0 ? named_parts(whole) : NamedTensors();
  }
  void set_weights(const NamedTensors& values) override {
    const at::Tensor whole =
        at::zeros({sharded_.layout().size}, at::TensorOptions().dtype(at::kFloat));
    const NamedTensors parts = named_parts(whole);
    if (group_.rank() == 0) assign_weights(values, parts);
    group_.broadcast(buffer_of_tensor(whole), 0);
    for (const at::Tensor& rest : unspread()) group_.broadcast(buffer_of_tensor(rest), 0);
    sharded_.set_weights(whole);
    start_average();
  }

  void give_back() override {
    at::Tensor whole = sharded_.gather_weights();
    if (!whole.defined()) {
      whole = at::empty({sharded_.layout().size}, at::TensorOptions().dtype(at::kFloat));
    }
    group_.broadcast(buffer_of_tensor(whole), 0);
    for (std::size_t i = 0; i < sharded_.layout().entries.size(); ++i) {
      const FlatEntry& entry = sharded_.layout().entries[i];
      sharded_.layout().parameters[i].set_data(FlatParameters::view(whole, entry).clone());
    }
  }

 private:
  void start_average() {
    if (average_decay_ != 0) average_.emplace(average_decay_, sharded_.pieces());
  }
  // What every rank has whole: buffers, and parameters that are not trained.
  std::vector<at::Tensor> unspread() const {
    std::vector<at::Tensor> result = sharded_.layout().frozen;
    for (const at::Tensor& buffer : module_.buffers()) result.push_back(buffer);
    return result;
  }
  // The module's weights by name, those that are trained as views of a whole buffer. Tied ones
  // under their first name.
  NamedTensors named_parts(const at::Tensor& whole) const {
    const std::vector<FlatEntry>& entries = sharded_.layout().entries;
    NamedTensors result;
    for (const auto& [name, tensor] : named_weights(module_)) {
      const auto entry = std::ranges::find(entries, name, &FlatEntry::name);
      if (entry != entries.end()) {
        result.emplace_back(name, FlatParameters::view(whole, *entry));
      } else if (!tensor.requires_grad()) {
        result.emplace_back(name, tensor);
      }
    }
    return result;
  }

  torch::nn::Module& module_;
  Group& group_;
  GroupSums sums_{group_};
  std::int64_t num_micro_batches_;
  double learning_rate_;
  ShardedModel sharded_;
  const SequentialRunner runner_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  double average_decay_;
  std::optional<optim::WeightAverage> average_;
};

}  // namespace

std::unique_ptr<SpreadModel> make_zero_model(torch::nn::Module& module, Group& group,
                                             const OptimizerRecipe& recipe,
                                             const ShardOptions& options, double average_decay) {
  ShardOptions with_units = options;
  with_units.units = sequential_units(module);
  return std::make_unique<ZeroModel>(module, group, recipe, with_units, average_decay);
}

}  // namespace trireme

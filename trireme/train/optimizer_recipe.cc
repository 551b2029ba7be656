// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/optimizer_recipe.h"

#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <utility>

namespace trireme {
namespace {

template <class Base, class Options>
OptimizerRecipe::MakeReplicated maker(const Options& options) {
  return [options](std::vector<at::Tensor> parameters) {
    return std::make_unique<Base>(std::move(parameters), options);
  };
}

template <class Options>
Options torch_options(const AdamOptions& options) {
  return Options(options.learning_rate)
      .betas({options.beta1, options.beta2})
      .eps(options.epsilon)
      .weight_decay(options.weight_decay);
}

optim::OptimizerConfig config_of(const char* name, const AdamOptions& options) {
  return {.name = name,
          .beta1 = options.beta1,
          .beta2 = options.beta2,
          .epsilon = options.epsilon,
          .weight_decay = options.weight_decay};
}

}  // namespace

std::unique_ptr<optim::Optimizer> OptimizerRecipe::make_sharded(optim::OptimizerSpace space) const {
  for (optim::OptimizerParameter& parameter : space.parameters) parameter.decays |= all_decay;
  return optim::make_optimizer(config.value(), space);
}

// As in torch::optim every parameter decays.

Sgd::Sgd(const SgdOptions& options) {
  make_replicated = maker<torch::optim::SGD>(
      torch::optim::SGDOptions(options.learning_rate).momentum(options.momentum));
  config = {.name = "sgd", .momentum = options.momentum};
  all_decay = true;
  learning_rate = options.learning_rate;
}

Adam::Adam(const AdamOptions& options) {
  make_replicated = maker<torch::optim::Adam>(torch_options<torch::optim::AdamOptions>(options));
  config = config_of("adam", options);
  all_decay = true;
  learning_rate = options.learning_rate;
}

AdamW::AdamW(const AdamOptions& options) {
  make_replicated = maker<torch::optim::AdamW>(torch_options<torch::optim::AdamWOptions>(options));
  config = config_of("adamw", options);
  all_decay = true;
  learning_rate = options.learning_rate;
}

ShardedOptimizer::ShardedOptimizer(const optim::OptimizerConfig& given, double rate) {
  given.validate();
  config = given;
  learning_rate = rate;
}

TorchOptimizer::TorchOptimizer(MakeReplicated make) { make_replicated = std::move(make); }

}  // namespace trireme

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

// Over shards, Adam without decay and AdamW are one. As in torch::optim every parameter decays.
OptimizerRecipe::MakeSharded adamw_maker(const AdamOptions& options) {
  const optim::AdamWConfig config{.beta1 = options.beta1,
                                  .beta2 = options.beta2,
                                  .epsilon = options.epsilon,
                                  .weight_decay = options.weight_decay};
  return [config](optim::OptimizerSpace space) {
    for (optim::OptimizerParameter& parameter : space.parameters) parameter.decays = true;
    return optim::make_optimizer(config, space);
  };
}

}  // namespace

Sgd::Sgd(const SgdOptions& options) {
  make_replicated = maker<torch::optim::SGD>(
      torch::optim::SGDOptions(options.learning_rate).momentum(options.momentum));
}

Adam::Adam(const AdamOptions& options) {
  make_replicated = maker<torch::optim::Adam>(torch_options<torch::optim::AdamOptions>(options));
  learning_rate = options.learning_rate;
  if (options.weight_decay == 0) make_sharded = adamw_maker(options);
}

AdamW::AdamW(const AdamOptions& options) {
  make_replicated = maker<torch::optim::AdamW>(torch_options<torch::optim::AdamWOptions>(options));
  learning_rate = options.learning_rate;
  make_sharded = adamw_maker(options);
}

TorchOptimizer::TorchOptimizer(MakeReplicated make) { make_replicated = std::move(make); }

}  // namespace trireme

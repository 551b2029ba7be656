// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// OptimizerRecipe: which optimizer Model::compile() shall make, once it knows the parameters and
// how they are spread.
//
//   model.compile(Adam({.learning_rate = 0.01}), ...);
//   model.compile(TorchOptimizer([](std::vector<at::Tensor> parameters) {
//                   return std::make_unique<torch::optim::RMSprop>(std::move(parameters), 0.01);
//                 }), ...);
//
//   model.compile(ShardedOptimizer({.name = "lion"}, 1e-3), ...);
//
// Where each rank keeps the whole model, it is torch::optim's; under ShardedStrategy and
// ParameterServerStrategy that of optim/optimizer.h which computes the same.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "trireme/optim/optimizer.h"

namespace torch::optim {
class Optimizer;
}

namespace trireme {

struct OptimizerRecipe {
  using MakeReplicated =
      std::function<std::unique_ptr<torch::optim::Optimizer>(std::vector<at::Tensor> parameters)>;

  MakeReplicated make_replicated = nullptr;  // null: there is no such optimizer of torch::optim
  // Of the one over shards and on servers, with its learning rate; empty: there is none.
  std::optional<optim::OptimizerConfig> config = std::nullopt;
  double learning_rate = 0;
  bool all_decay = false;  // each parameter; else those that space says

  // By config, which is there.
  std::unique_ptr<optim::Optimizer> make_sharded(optim::OptimizerSpace space) const;
};

struct SgdOptions {
  double learning_rate = 0.01;
  double momentum = 0;
};
struct Sgd : OptimizerRecipe {
  explicit Sgd(const SgdOptions& options = {});
};

struct AdamOptions {
  double learning_rate = 0.001;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;  // Adam: added to the gradient; AdamW: of the weights themselves
};
struct Adam : OptimizerRecipe {
  explicit Adam(const AdamOptions& options = {});
};
struct AdamW : OptimizerRecipe {
  explicit AdamW(const AdamOptions& options = {});
};

// Any method of optim/optimizer_config.h. Under ShardedStrategy and ParameterServerStrategy only.
// Throws ConfigError.
struct ShardedOptimizer : OptimizerRecipe {
  ShardedOptimizer(const optim::OptimizerConfig& config, double learning_rate);
};

// Any optimizer whose step() needs no closure. Under strategies that mirror the model only.
struct TorchOptimizer : OptimizerRecipe {
  explicit TorchOptimizer(MakeReplicated make);
};

}  // namespace trireme

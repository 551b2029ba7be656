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
// Where each rank keeps the whole model, it is torch::optim's; under ShardedStrategy that of
// optim/optimizer.h which computes the same.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "trireme/optim/optimizer.h"

namespace torch::optim {
class Optimizer;
}

namespace trireme {

struct OptimizerRecipe {
  using MakeReplicated =
      std::function<std::unique_ptr<torch::optim::Optimizer>(std::vector<at::Tensor> parameters)>;
  using MakeSharded =
      std::function<std::unique_ptr<optim::Optimizer>(const optim::OptimizerSpace& space)>;

  MakeReplicated make_replicated = nullptr;  // null: there is no such optimizer of torch::optim
  MakeSharded make_sharded = nullptr;        // null: there is no such optimizer over shards
  double learning_rate = 0;                  // of the sharded one
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

// Any method of optim/optimizer_config.h. Under ShardedStrategy only. Throws ConfigError.
struct ShardedOptimizer : OptimizerRecipe {
  ShardedOptimizer(const optim::OptimizerConfig& config, double learning_rate);
};

// Any optimizer whose step() needs no closure. Not under ShardedStrategy.
struct TorchOptimizer : OptimizerRecipe {
  explicit TorchOptimizer(MakeReplicated make);
};

}  // namespace trireme

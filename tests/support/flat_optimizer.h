// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// An optimizer over one buffer that is not cut, for tests that have no parameters to name.
//
//   FlatOptimizer adamw({.weight_decay = 0.1}, size, {{0, size / 2}});  // the first half decays
//   adamw.step({.weights = weights, .gradients = gradients, .learning_rate = 1e-3});
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trireme/optim/optimizer.h"

namespace trireme::testing {

using Ranges = std::vector<std::pair<std::int64_t, std::int64_t>>;

struct FlatUpdate {
  at::Tensor weights;
  at::Tensor gradients;
  double learning_rate = 0;
  double gradient_scale = 1;
  at::Tensor working_copy = {};
  bool clear_gradients = false;
  at::Tensor gradient_factor = {};
};

// A space whose parameters are the ranges that decay.
inline optim::OptimizerSpace flat_space(std::int64_t size, const Ranges& decaying,
                                        c10::Device device = at::kCPU) {
  optim::OptimizerSpace space;
  for (const auto& [begin, end] : decaying) {
    const std::string name = "parameter." + std::to_string(space.parameters.size());
    space.parameters.push_back({{name, {end - begin}, begin, end - begin}, /*decays=*/true});
  }
  space.segments = {{0, size}};
  space.device = device;
  return space;
}

class FlatOptimizer {
 public:
  FlatOptimizer(const optim::OptimizerConfig& config, std::int64_t size, const Ranges& decaying,
                c10::Device device = at::kCPU)
      : optimizer_(optim::make_optimizer(config, flat_space(size, decaying, device))) {}

  void step(const FlatUpdate& update) {
    const optim::PieceUpdate all{update.weights, update.gradients, update.working_copy};
    optimizer_->step({.pieces = {&all, 1},
                      .learning_rate = update.learning_rate,
                      .gradient_scale = update.gradient_scale,
                      .clear_gradients = update.clear_gradients,
                      .gradient_factor = update.gradient_factor});
  }
  void round(const at::Tensor& weights, const at::Tensor& working_copy) const {
    const optim::PieceUpdate all{weights, {}, working_copy};
    optimizer_->round({&all, 1});
  }
  at::Tensor moment(std::size_t which) { return optimizer_->state().at(which).values; }
  optim::Optimizer& get() { return *optimizer_; }

 private:
  std::unique_ptr<optim::Optimizer> optimizer_;
};

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Methods whose update of an element needs that element alone: sgd, adagrad, adam, adamw, lion.
// Internal to the optimizers.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "trireme/optim/moment.h"
#include "trireme/optim/optimizer.h"
#include "trireme/optim/shard_optimizer.h"

namespace trireme::optim {

// Elements side by side that decay alike.
struct ElementwisePart {
  std::int64_t count = 0;
  float* weights = nullptr;
  float* gradients = nullptr;
  float* moments[2] = {nullptr, nullptr};  // as many as the method has
  bool decays = false;
};

// Computes a part's update; any thread.
using ElementwiseKernel = std::function<void(const ElementwisePart&, const detail::UpdateExtras&)>;

// A method as data.
struct ElementwiseMethod {
  struct MomentKind {
    std::string name;       // in the state
    Moment::Storage bytes;  // of 8-bit state
  };
  std::vector<MomentKind> moments;  // at most 2
  // The kernel of a step.
  ElementwiseKernel (*kernel)(const OptimizerConfig& config, const StepScalars& scalars);
  bool has_cuda_kernel = false;  // cuda::adamw_update is the only one
};

// nullptr: config.name is no elementwise method. config: with_defaults().
std::unique_ptr<Optimizer> make_elementwise(const OptimizerConfig& config,
                                            const OptimizerSpace& space);

// What its state takes; 0 for a config that is of no elementwise method.
std::int64_t elementwise_state_bytes(const OptimizerConfig& config, std::int64_t elements);

}  // namespace trireme::optim

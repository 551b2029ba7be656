// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Methods whose update of an element needs that element alone: sgd, adam, adamw, lion. Internal to
// the optimizers.
#pragma once

#include <functional>
#include <memory>
#include <optional>
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

// Nothing: config.name is no elementwise method. config: with_defaults().
std::optional<ElementwiseMethod> elementwise_method(const OptimizerConfig& config);

// nullptr: config.name is no elementwise method. config: with_defaults().
std::unique_ptr<Optimizer> make_elementwise(const OptimizerConfig& config,
                                            const OptimizerSpace& space);

// What its state takes; 0 for a config that is of no elementwise method.
std::int64_t elementwise_state_bytes(const OptimizerConfig& config, std::int64_t elements);

// What the means of Adam lack after so many steps, having begun at 0.
struct AdamCorrections {
  double first = 1;               // 1 - beta1^steps
  float inverse_sqrt_second = 1;  // 1 / sqrt(1 - beta2^steps)

  float step_size(double learning_rate) const { return static_cast<float>(learning_rate / first); }
};
AdamCorrections adam_corrections(const OptimizerConfig& config, std::int64_t steps);

// The scalars of a step. config: with_defaults(). Adam's are for all who have its moments.
detail::AdamWScalars adam_scalars(const OptimizerConfig& config, const StepScalars& scalars);
detail::LionScalars lion_scalars(const OptimizerConfig& config, const StepScalars& scalars);
detail::SgdScalars sgd_scalars(const OptimizerConfig& config, const StepScalars& scalars);

}  // namespace trireme::optim

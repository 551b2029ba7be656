// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From a method's options and a step to the scalars of its kernels (kernels.h): computed in f64 and
// rounded once, in one place for all who call the kernels. Internal to the optimizers.
#pragma once

#include <cstdint>

#include "trireme/optim/kernels.h"
#include "trireme/optim/optimizer_config.h"

namespace trireme::optim {

// An update's scalars, after the checks.
struct StepScalars {
  double learning_rate = 0;
  float gradient_scale = 1;  // with gradient_factor, where that is on the host
  std::int64_t steps = 0;    // this one included
};

// What decoupled weight decay leaves of a weight.
float kept_by_decay(double learning_rate, double weight_decay);

// What Adam's moments are divided by, because they began as zeros.
struct AdamCorrection {
  double first = 0;               // 1 - beta1^steps
  float inverse_sqrt_second = 0;  // 1 / sqrt(1 - beta2^steps)
};
AdamCorrection adam_correction(const OptimizerConfig& config, std::int64_t steps);

// config: with_defaults(), of a method that has these options.
detail::AdamWScalars adam_scalars(const OptimizerConfig& config, const StepScalars& scalars);
detail::SgdScalars sgd_scalars(const OptimizerConfig& config, const StepScalars& scalars);
detail::AdagradScalars adagrad_scalars(const OptimizerConfig& config, const StepScalars& scalars);
detail::LionScalars lion_scalars(const OptimizerConfig& config, const StepScalars& scalars);

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/method_scalars.h"

#include <cmath>

namespace trireme::optim {

float kept_by_decay(double learning_rate, double weight_decay) {
  return static_cast<float>(1.0 - learning_rate * weight_decay);
}

AdamCorrection adam_correction(const OptimizerConfig& config, std::int64_t steps) {
  const auto count = static_cast<double>(steps);
  return {.first = 1.0 - std::pow(*config.beta1, count),
          .inverse_sqrt_second =
              static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(*config.beta2, count)))};
}

detail::AdamWScalars adam_scalars(const OptimizerConfig& config, const StepScalars& scalars) {
  const double beta1 = *config.beta1, beta2 = *config.beta2;
  const AdamCorrection correction = adam_correction(config, scalars.steps);
  return {
      .gradient_scale = scalars.gradient_scale,
      .beta1 = static_cast<float>(beta1),
      .one_minus_beta1 = static_cast<float>(1.0 - beta1),
      .beta2 = static_cast<float>(beta2),
      .one_minus_beta2 = static_cast<float>(1.0 - beta2),
      .inverse_sqrt_correction2 = correction.inverse_sqrt_second,
      .epsilon = static_cast<float>(*config.epsilon),
      .step_size = static_cast<float>(scalars.learning_rate / correction.first),
  };
}

detail::SgdScalars sgd_scalars(const OptimizerConfig& config, const StepScalars& scalars) {
  return {.gradient_scale = scalars.gradient_scale,
          .momentum = static_cast<float>(*config.momentum),
          .learning_rate = static_cast<float>(scalars.learning_rate)};
}

detail::AdagradScalars adagrad_scalars(const OptimizerConfig& config, const StepScalars& scalars) {
  return {.gradient_scale = scalars.gradient_scale,
          .epsilon = static_cast<float>(*config.epsilon),
          .learning_rate = static_cast<float>(scalars.learning_rate)};
}

detail::LionScalars lion_scalars(const OptimizerConfig& config, const StepScalars& scalars) {
  return {.gradient_scale = scalars.gradient_scale,
          .beta1 = static_cast<float>(*config.beta1),
          .one_minus_beta1 = static_cast<float>(1.0 - *config.beta1),
          .beta2 = static_cast<float>(*config.beta2),
          .one_minus_beta2 = static_cast<float>(1.0 - *config.beta2),
          .learning_rate = static_cast<float>(scalars.learning_rate)};
}

}  // namespace trireme::optim

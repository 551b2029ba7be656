// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/row_rule.h"

#include <array>
#include <optional>
#include <string_view>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/optim/kernels.h"

namespace trireme::optim {
namespace {

// Corrections that are kept: 1 MiB. Those of a beta of 0.999 are 1 long before.
constexpr std::int64_t kMostCorrections = 65536;

// The kernels take gradients that they may clear; here they never do.
float* unchanged(const float* gradients) { return const_cast<float*>(gradients); }

}  // namespace

RowRule::RowRule(const OptimizerConfig& config) : config_(config) {
  config.validate();
  config_ = config.with_defaults();
  const std::optional<ElementwiseMethod> method = elementwise_method(config_);
  if (!method) {
    throw_error<ConfigError>(
        "the optimizer {} looks at whole matrices or at the norms of whole parameters, and a row "
        "of a sparse table is updated alone: take sgd, adagrad, adam, adamw or lion",
        config.name);
  }
  if (config.state == "8bit") {
    throw_error<ConfigError>(
        "the optimizer {} with 8bit state keeps blocks of 256 elements, and a row of a sparse "
        "table is updated alone: take state f32",
        config.name);
  }
  for (const auto& moment : method->moments) moments_.push_back(moment.name);
  run_ = run_of(config.name);
}

RowRule::Run RowRule::run_of(const std::string& name) {
  struct Method {
    std::string_view name;
    Run run;
  };
  constexpr std::array kMethods = {
      Method{"sgd", &RowRule::run_sgd},
      Method{"adam", &RowRule::run_adam},
      Method{"adamw", &RowRule::run_adamw},
      Method{"lion", &RowRule::run_lion},
  };
  for (const Method& method : kMethods) {
    if (method.name == name) return method.run;
  }
  TRIREME_ASSERT(false, "an elementwise method without rows: {}", name);
}

void RowRule::update(std::span<const RowStep> rows, std::int64_t width, double learning_rate,
                     double gradient_scale) {
  (this->*run_)(rows, width, {learning_rate, static_cast<float>(gradient_scale), /*steps=*/1});
}

const AdamCorrections& RowRule::corrections(std::int64_t steps) {
  if (steps >= kMostCorrections) {
    late_ = adam_corrections(config_, steps);
    return late_;
  }
  while (static_cast<std::int64_t>(corrections_.size()) <= steps) {
    corrections_.push_back(
        adam_corrections(config_, static_cast<std::int64_t>(corrections_.size())));
  }
  return corrections_[static_cast<std::size_t>(steps)];
}

void RowRule::run_sgd(std::span<const RowStep> rows, std::int64_t width,
                      const StepScalars& scalars) {
  const detail::SgdScalars s = sgd_scalars(config_, scalars);
  const auto decay = static_cast<float>(*config_.weight_decay);
  for (const RowStep& row : rows) {
    detail::sgd_update(s, decay, width, row.weights, unchanged(row.gradients),
                       moments_.empty() ? nullptr : row.weights + width, {});
  }
}

void RowRule::run_adam(std::span<const RowStep> rows, std::int64_t width,
                       const StepScalars& scalars) {
  detail::AdamWScalars s = adam_scalars(config_, scalars);
  const auto decay = static_cast<float>(*config_.weight_decay);
  for (const RowStep& row : rows) {
    const AdamCorrections& own = corrections(row.steps);
    s.inverse_sqrt_correction2 = own.inverse_sqrt_second;
    s.step_size = own.step_size(scalars.learning_rate);
    detail::adam_update(s, decay, width, row.weights, unchanged(row.gradients), row.weights + width,
                        row.weights + 2 * width, {});
  }
}

void RowRule::run_adamw(std::span<const RowStep> rows, std::int64_t width,
                        const StepScalars& scalars) {
  detail::AdamWScalars s = adam_scalars(config_, scalars);
  const float keep = kept_by_decay(scalars.learning_rate, *config_.weight_decay);
  for (const RowStep& row : rows) {
    const AdamCorrections& own = corrections(row.steps);
    s.inverse_sqrt_correction2 = own.inverse_sqrt_second;
    s.step_size = own.step_size(scalars.learning_rate);
    detail::adamw_update(s, keep, width, row.weights, unchanged(row.gradients), row.weights + width,
                         row.weights + 2 * width, {});
  }
}

void RowRule::run_lion(std::span<const RowStep> rows, std::int64_t width,
                       const StepScalars& scalars) {
  const detail::LionScalars s = lion_scalars(config_, scalars);
  const float keep = kept_by_decay(scalars.learning_rate, *config_.weight_decay);
  for (const RowStep& row : rows) {
    detail::lion_update(s, keep, width, row.weights, unchanged(row.gradients), row.weights + width,
                        {});
  }
}

}  // namespace trireme::optim

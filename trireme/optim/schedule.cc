// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>
#include <string_view>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

namespace trireme::optim {
namespace {

void check_fraction(const char* key, double value) {
  if (!(value >= 0.0 && value <= 1.0)) {
    throw_error<ConfigError>("schedule.{} is {}; it must lie in [0, 1]", key, value);
  }
}

// 0 at the first step after the warm-up, 1 at the last step.
double progress_after_warmup(const ScheduleConfig& config, std::int64_t step,
                             std::int64_t total_steps) {
  const std::int64_t span = std::max<std::int64_t>(1, total_steps - 1 - config.warmup_steps);
  return static_cast<double>(step - config.warmup_steps) / static_cast<double>(span);
}

// The factors of the peak after the warm-up.

double cosine_factor(const ScheduleConfig& config, std::int64_t step, std::int64_t total_steps) {
  const double progress = progress_after_warmup(config, step, total_steps);
  const double falling = 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return config.final_fraction + (1.0 - config.final_fraction) * falling;
}

double linear_factor(const ScheduleConfig& config, std::int64_t step, std::int64_t total_steps) {
  return 1.0 - (1.0 - config.final_fraction) * progress_after_warmup(config, step, total_steps);
}

// 1, then over the last steps down a straight line to final_fraction at the last step.
double wsd_factor(const ScheduleConfig& config, std::int64_t step, std::int64_t total_steps) {
  const std::int64_t decay_steps =
      std::llround(config.decay_fraction * static_cast<double>(total_steps));
  const std::int64_t decayed = step - (total_steps - decay_steps) + 1;
  if (decayed <= 0) {
    return 1.0;
  }
  const double progress = static_cast<double>(decayed) / static_cast<double>(decay_steps);
  return 1.0 - (1.0 - config.final_fraction) * progress;
}

double inverse_sqrt_factor(const ScheduleConfig& config, std::int64_t step, std::int64_t) {
  const std::int64_t warmup_steps = std::max<std::int64_t>(1, config.warmup_steps);
  return std::sqrt(static_cast<double>(warmup_steps) / static_cast<double>(step + 1));
}

double constant_factor(const ScheduleConfig&, std::int64_t, std::int64_t) { return 1.0; }

struct Decay {
  std::string_view name;
  double (*factor)(const ScheduleConfig& config, std::int64_t step, std::int64_t total_steps);
};

constexpr Decay kDecays[] = {{"cosine", cosine_factor},
                             {"linear", linear_factor},
                             {"wsd", wsd_factor},
                             {"inverse_sqrt", inverse_sqrt_factor},
                             {"constant", constant_factor}};

// nullptr: unknown.
const Decay* find_decay(std::string_view name) {
  const auto* found = std::ranges::find(kDecays, name, &Decay::name);
  return found == std::end(kDecays) ? nullptr : found;
}

}  // namespace

void ScheduleConfig::visit(ConfigFields& f) {
  f.field("learning_rate", learning_rate, "the peak");
  f.field("decay", decay,
          "after the warm-up: cosine or linear to the end; wsd: stable, then linear at the end; "
          "inverse_sqrt of the step; constant",
          {"cosine", "linear", "wsd", "inverse_sqrt", "constant"});
  f.field("warmup_steps", warmup_steps, "steps of linear warm-up");
  f.field("final_fraction", final_fraction,
          "cosine, linear, wsd: learning rate of the last step, as a share of the peak");
  f.field("decay_fraction", decay_fraction, "wsd: the share of all steps that decays");
}

void ScheduleConfig::validate() const {
  if (!(learning_rate > 0.0) || !std::isfinite(learning_rate)) {
    throw_error<ConfigError>("schedule.learning_rate is {}; it must be above 0", learning_rate);
  }
  if (find_decay(decay) == nullptr) {
    throw_error<ConfigError>(
        "schedule.decay is '{}'; known: cosine, linear, wsd, inverse_sqrt, constant", decay);
  }
  if (warmup_steps < 0) {
    throw_error<ConfigError>("schedule.warmup_steps is {}; it must be at least 0", warmup_steps);
  }
  check_fraction("final_fraction", final_fraction);
  check_fraction("decay_fraction", decay_fraction);
}

double learning_rate_at(const ScheduleConfig& config, std::int64_t step, std::int64_t total_steps) {
  TRIREME_CHECK_LE(0, step, "learning rate of a step");
  TRIREME_CHECK_LT(step, total_steps, "learning rate of a step");
  if (step < config.warmup_steps) {
    return config.learning_rate * static_cast<double>(step + 1) /
           static_cast<double>(config.warmup_steps);
  }
  const Decay* decay = find_decay(config.decay);
  TRIREME_ASSERT(decay != nullptr, "schedule.decay '{}' was not validated", config.decay);
  return config.learning_rate * decay->factor(config, step, total_steps);
}

}  // namespace trireme::optim

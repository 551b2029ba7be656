// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/loss_scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trireme/base/error.h"
#include "trireme/optim/state_text.h"

namespace trireme::optim {
namespace {

// Above it a scaled loss of 1 has no room left in f32 for the sums over many micro-batches.
constexpr double kLargestScale = 0x1p64;
constexpr double kSmallestScale = 0x1p-24;  // f16's smallest number

bool is_scale(double value) {
  int exponent = 0;
  return value >= kSmallestScale && value <= kLargestScale && std::frexp(value, &exponent) == 0.5;
}

void check_scale(const char* key, double value) {
  if (!is_scale(value)) {
    throw_error<ConfigError>(
        "LossScaleConfig::{} is {}: a power of two between 2^-24 and 2^64, so that scaling rounds "
        "nothing",
        key, value);
  }
}

}  // namespace

void LossScaleConfig::validate() const {
  check_scale("initial", initial);
  check_scale("minimum", minimum);
  if (minimum > initial) {
    throw_error<ConfigError>("LossScaleConfig::minimum is {}, above the initial scale {}", minimum,
                             initial);
  }
  if (growth_interval < 0) {
    throw_error<ConfigError>("LossScaleConfig::growth_interval is {}: 0 (fixed) or above",
                             growth_interval);
  }
  if (max_consecutive < 0) {
    throw_error<ConfigError>("LossScaleConfig::max_consecutive is {}: at least 0", max_consecutive);
  }
}

LossScale::LossScale(const LossScaleConfig& config) : config_(config) {
  config_.validate();
  state_.scale = config_.initial;
}

at::Tensor LossScale::scaled(const at::Tensor& loss) const {
  return loss.to(at::kFloat).mul(state_.scale);
}

bool LossScale::update(double norm) {
  if (!std::isfinite(norm)) {
    count_overflow();
    return false;
  }
  state_.stuck_overflows = 0;
  if (config_.growth_interval > 0 && ++state_.good_steps >= config_.growth_interval) {
    state_.scale = std::min(2 * state_.scale, kLargestScale);
    state_.good_steps = 0;
  }
  return true;
}

void LossScale::count_overflow() {
  ++state_.overflows;
  state_.good_steps = 0;
  if (config_.growth_interval > 0 && state_.scale > config_.minimum) {
    state_.scale /= 2;
    return;
  }
  if (++state_.stuck_overflows > config_.max_consecutive) {
    throw_error<Error>(
        "gradients overflow at a loss scale of {}, {} time{} in a row, and it cannot fall: {}",
        state_.scale, state_.stuck_overflows, state_.stuck_overflows == 1 ? "" : "s",
        config_.growth_interval > 0
            ? "training has diverged, or the model's values exceed f16's 65504; resume from the "
              "last checkpoint with a smaller learning rate, or train in bf16"
            : "lower LossScaleConfig::initial, or let it adapt with growth_interval");
  }
}

void LossScale::set_state(const LossScaleState& state) {
  if (!is_scale(state.scale)) {
    throw_error<CheckpointError>("the checkpoint's loss scale is {}, not a power of two",
                                 state.scale);
  }
  state_ = state;
}

std::string to_text(const LossScaleState& state) {
  return fmt::format("{} {} {} {}", state.scale, state.good_steps, state.overflows,
                     state.stuck_overflows);
}

LossScaleState loss_scale_state_from_text(std::string_view text) {
  LossScaleState state;
  detail::StateReader reader("the loss scale's", text);
  reader.next(state.scale);
  reader.next(state.good_steps);
  reader.next(state.overflows);
  reader.next(state.stuck_overflows);
  reader.finish();
  return state;
}

}  // namespace trireme::optim

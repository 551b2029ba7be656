// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/gradient_guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trireme/base/error.h"
#include "trireme/optim/state_text.h"

namespace trireme::optim {

void GuardConfig::visit(ConfigFields& f) {
  f.field(
      "max_consecutive", max_consecutive,
      "bad steps in a row (not finite, or spiking) that are passed over; one more ends the run");
  f.field("spike_factor", spike_factor,
          "a gradient norm this many times its running mean is bad; 0: none is");
  f.field("spike_window", spike_window, "steps that the running mean goes back");
}

void GuardConfig::validate() const {
  if (max_consecutive < 0) {
    throw_error<ConfigError>(
        "guard.max_consecutive is {}: 0 (the first bad step ends the run) or "
        "above",
        max_consecutive);
  }
  if (spike_factor != 0 && !(spike_factor >= 1 && std::isfinite(spike_factor))) {
    throw_error<ConfigError>("guard.spike_factor is {}: 0 (off) or at least 1", spike_factor);
  }
  if (spike_window < 1) {
    throw_error<ConfigError>("guard.spike_window is {}: at least 1 step", spike_window);
  }
}

GradientGuard::GradientGuard(const GuardConfig& config) : config_(config) { config_.validate(); }

bool GradientGuard::spikes(double norm) const {
  return config_.spike_factor > 0 && state_.mean_steps >= config_.spike_window &&
         norm > config_.spike_factor * state_.mean_norm;
}

StepVerdict GradientGuard::judge(std::int64_t step, double loss, double norm) {
  StepVerdict verdict = StepVerdict::kApply;
  if (!std::isfinite(loss) || !std::isfinite(norm)) {
    verdict = StepVerdict::kNonFinite;
    ++state_.non_finite;
  } else if (spikes(norm)) {
    verdict = StepVerdict::kSpike;
    ++state_.spikes;
  }
  if (verdict == StepVerdict::kApply) {
    state_.consecutive = 0;
    state_.mean_steps = std::min(state_.mean_steps + 1, config_.spike_window);
    state_.mean_norm += (norm - state_.mean_norm) / static_cast<double>(state_.mean_steps);
    return verdict;
  }
  if (++state_.consecutive > config_.max_consecutive) {
    throw_error<Error>(
        "step {}: the loss is {} and the gradient norm {} (running mean {:.4g}): {} bad step{} in "
        "a row, guard.max_consecutive is {}; training has diverged: resume from the last "
        "checkpoint with a smaller learning rate{}",
        step + 1, loss, norm, state_.mean_norm, state_.consecutive,
        state_.consecutive == 1 ? "" : "s", config_.max_consecutive,
        verdict == StepVerdict::kSpike ? " or a larger guard.spike_factor" : "");
  }
  return verdict;
}

std::string describe_skipped(std::int64_t step, StepVerdict verdict, double loss, double norm,
                             const GuardState& state) {
  return fmt::format(
      "step {}: skipped: {} (loss {:.4g}, gradient norm {:.4g}, running mean {:.4g}); the weights "
      "are as before; {} in a row, {} not finite and {} spiking so far",
      step + 1,
      verdict == StepVerdict::kSpike ? "the gradient norm spikes"
                                     : "the loss or the gradient is not finite",
      loss, norm, state.mean_norm, state.consecutive, state.non_finite, state.spikes);
}

std::string to_text(const GuardState& state) {
  return fmt::format("{} {} {} {} {}", state.non_finite, state.spikes, state.consecutive,
                     state.mean_steps, state.mean_norm);
}

GuardState guard_state_from_text(std::string_view text) {
  GuardState state;
  detail::StateReader reader("the guard's", text);
  reader.next(state.non_finite);
  reader.next(state.spikes);
  reader.next(state.consecutive);
  reader.next(state.mean_steps);
  reader.next(state.mean_norm);
  reader.finish();
  return state;
}

}  // namespace trireme::optim

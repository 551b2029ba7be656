// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// GradientGuard: is this step's gradient fit to be applied? One bad batch is passed over and
// counted; a run that sees nothing else ends with an error, so that it never trains on nothing.
//
//   optim::GradientGuard guard({.spike_factor = 10});
//   const optim::StepVerdict verdict = guard.judge(step, loss, sharded.gradient_norm());
//   if (verdict == optim::StepVerdict::kApply) {
//     sharded.step(*optimizer, learning_rate);
//   } else {
//     sharded.drop_gradients();
//   }
//
// A step is bad when its loss or its gradient norm is infinite or no number, or when its norm
// spikes: is above spike_factor x the running mean of norms. After t applied steps the mean is
//
//   m(t) = m(t-1) + (norm - m(t-1)) / min(t, spike_window)          m(0) = 0
//
// the plain mean of the first spike_window norms, an exponential one with that time constant from
// there on. Bad steps do not enter it, and before spike_window steps were applied nothing spikes.
//
// Pure: no clock, no communication. Ranks that are given the same numbers, as after
// ShardedModel::gradient_norm() and a sum of the losses, come to the same verdict.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "trireme/base/config.h"

namespace trireme::optim {

struct GuardConfig {
  // Bad steps in a row that are passed over; one more is an error. 0: the first is.
  std::int64_t max_consecutive = 5;
  double spike_factor = 0;          // at least 1; 0: norms may be what they like, if finite
  std::int64_t spike_window = 100;  // steps

  void visit(ConfigFields& f);
  // Throws ConfigError.
  void validate() const;
};

enum class StepVerdict { kApply, kNonFinite, kSpike };

// What the guard has seen: all that it remembers.
struct GuardState {
  std::int64_t non_finite = 0;   // steps passed over for that reason
  std::int64_t spikes = 0;       // and for this one
  std::int64_t consecutive = 0;  // bad steps since the last one that was applied
  std::int64_t mean_steps = 0;   // applied steps, at most spike_window
  double mean_norm = 0;

  bool operator==(const GuardState&) const = default;
};

// Not thread-safe.
class GradientGuard {
 public:
  // Throws ConfigError as GuardConfig::validate() does.
  explicit GradientGuard(const GuardConfig& config);

  // The verdict on a step (0-based; for messages), which it counts. norm: of the gradient as it
  // would be applied, before clipping. Throws Error when more than max_consecutive steps in a row
  // are bad: names the step, the loss, the norm and what to do.
  StepVerdict judge(std::int64_t step, double loss, double norm);

  const GuardState& state() const { return state_; }
  // To go on where another guard was: the same verdicts bit for bit, given the same config.
  void set_state(const GuardState& state) { state_ = state; }

 private:
  bool spikes(double norm) const;

  GuardConfig config_;  // constant after construction
  GuardState state_;
};

// What a log says of a step (0-based) that was passed over; state: the guard's after it.
std::string describe_skipped(std::int64_t step, StepVerdict verdict, double loss, double norm,
                             const GuardState& state);

// A state as one line of text and back, bit for bit: for checkpoints. Throws CheckpointError for
// text that is none.
std::string to_text(const GuardState& state);
GuardState guard_state_from_text(std::string_view text);

}  // namespace trireme::optim

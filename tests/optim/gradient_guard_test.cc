// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/gradient_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"

namespace trireme::optim {
namespace {

using testing::failure_of;
using ::testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(GradientGuard, PassesOverWhatIsNotFiniteAndCountsIt) {
  GradientGuard guard({});
  EXPECT_EQ(guard.judge(0, 3.5, 1.25), StepVerdict::kApply);
  EXPECT_EQ(guard.judge(1, kNaN, 1.0), StepVerdict::kNonFinite);
  EXPECT_EQ(guard.judge(2, 3.25, kInfinity), StepVerdict::kNonFinite);
  EXPECT_EQ(guard.judge(3, -kInfinity, kNaN), StepVerdict::kNonFinite);
  EXPECT_EQ(guard.state().consecutive, 3);
  EXPECT_EQ(guard.judge(4, 3.0, 1.5), StepVerdict::kApply);
  EXPECT_EQ(guard.state(), (GuardState{.non_finite = 3, .mean_steps = 2, .mean_norm = 1.375}));
}

TEST(GradientGuard, EndsTheRunAfterTooManyBadStepsInARow) {
  GradientGuard guard({.max_consecutive = 2});
  for (std::int64_t step = 0; step < 12; step += 3) {  // never three in a row
    EXPECT_EQ(guard.judge(step, kNaN, 1.0), StepVerdict::kNonFinite);
    EXPECT_EQ(guard.judge(step + 1, 1.0, kNaN), StepVerdict::kNonFinite);
    EXPECT_EQ(guard.judge(step + 2, 1.0, 2.0), StepVerdict::kApply);
  }
  guard.judge(12, kNaN, 1.0);
  guard.judge(13, kNaN, 1.0);
  const std::string text = failure_of([&] { guard.judge(14, 7.5, kInfinity); });
  EXPECT_THAT(text, HasSubstr("step 15: the loss is 7.5 and the gradient norm inf"));
  EXPECT_THAT(text, HasSubstr("3 bad steps in a row, guard.max_consecutive is 2"));
  EXPECT_THAT(text, HasSubstr("resume from the last checkpoint"));
  GradientGuard strict({.max_consecutive = 0});
  EXPECT_THROW(strict.judge(0, kNaN, 1.0), Error);
}

// The mean of the last steps, by hand: 1, 2, 3 plainly, then a third of each further one.
TEST(GradientGuard, SpikesAreMeasuredByTheRunningMean) {
  GradientGuard guard({.spike_factor = 4, .spike_window = 3});
  EXPECT_EQ(guard.judge(0, 1, 1), StepVerdict::kApply);
  EXPECT_EQ(guard.judge(1, 1, 2), StepVerdict::kApply);
  EXPECT_EQ(guard.judge(2, 1, 3), StepVerdict::kApply);
  EXPECT_DOUBLE_EQ(guard.state().mean_norm, 2);
  EXPECT_EQ(guard.judge(3, 1, 8), StepVerdict::kApply);  // 4 x the mean is no spike yet
  EXPECT_DOUBLE_EQ(guard.state().mean_norm, 4);
  EXPECT_EQ(guard.judge(4, 1, 16.5), StepVerdict::kSpike);
  EXPECT_DOUBLE_EQ(guard.state().mean_norm, 4) << "spikes do not enter the mean";
  EXPECT_EQ(guard.judge(5, kNaN, 1), StepVerdict::kNonFinite);
  EXPECT_EQ(guard.state(),
            (GuardState{
                .non_finite = 1, .spikes = 1, .consecutive = 2, .mean_steps = 3, .mean_norm = 4}));
  EXPECT_EQ(guard.judge(6, 1, 1), StepVerdict::kApply);
  EXPECT_DOUBLE_EQ(guard.state().mean_norm, 3);
}

TEST(GradientGuard, TheFirstStepsNeverSpike) {
  GradientGuard guard({.spike_factor = 2, .spike_window = 5});
  for (std::int64_t step = 0; step < 5; ++step) {
    EXPECT_EQ(guard.judge(step, 1, std::pow(10.0, static_cast<double>(step))), StepVerdict::kApply);
  }
  EXPECT_EQ(guard.judge(5, 1, 1e5), StepVerdict::kSpike);
}

TEST(GradientGuard, WithoutAFactorNothingSpikes) {
  GradientGuard guard({.spike_window = 1});
  EXPECT_EQ(guard.judge(0, 1, 1e-3), StepVerdict::kApply);
  EXPECT_EQ(guard.judge(1, 1, 1e9), StepVerdict::kApply);
}

TEST(GradientGuard, ALevelThatStaysHighEndsTheRunAndSaysWhichKnob) {
  GradientGuard guard({.max_consecutive = 3, .spike_factor = 2, .spike_window = 1});
  guard.judge(0, 1, 1);
  for (std::int64_t step = 1; step < 4; ++step) guard.judge(step, 1, 5);
  const std::string text = failure_of([&] { guard.judge(4, 1, 5); });
  EXPECT_THAT(text, HasSubstr("larger guard.spike_factor"));
  EXPECT_THAT(text, HasSubstr("running mean 1)"));
}

TEST(GradientGuard, GoesOnFromItsStateBitForBit) {
  const GuardConfig config{.spike_factor = 3, .spike_window = 3};
  GradientGuard whole(config);
  GradientGuard first(config);
  const std::vector<double> norms = {0.1, 0.3, 0.7, 0.11, 5.0, 0.23, kNaN, 0.9, 1.3, 0.05};
  for (std::size_t i = 0; i < 5; ++i) first.judge(static_cast<std::int64_t>(i), 1, norms[i]);
  GradientGuard second(config);
  second.set_state(guard_state_from_text(to_text(first.state())));
  EXPECT_EQ(second.state(), first.state());
  for (std::size_t i = 0; i < norms.size(); ++i) {
    const auto step = static_cast<std::int64_t>(i);
    const StepVerdict expected = whole.judge(step, 1, norms[i]);
    if (i >= 5) {
      EXPECT_EQ(second.judge(step, 1, norms[i]), expected) << i;
    }
  }
  EXPECT_EQ(second.state(), whole.state());
  EXPECT_EQ(whole.state().spikes, 3);
}

TEST(GradientGuard, RefusesADamagedState) {
  for (const char* text : {"", "1 2 3 4", "1 2 3 4 5.5 6", "1 2 x 4 5"}) {
    EXPECT_THROW(guard_state_from_text(text), CheckpointError) << text;
  }
}

TEST(GuardConfig, RefusesValuesOutOfRange) {
  EXPECT_NO_THROW(GuardConfig{}.validate());
  EXPECT_THROW(GuardConfig{.max_consecutive = -1}.validate(), ConfigError);
  EXPECT_THROW(GuardConfig{.spike_factor = 0.5}.validate(), ConfigError);
  EXPECT_THROW(GuardConfig{.spike_factor = kNaN}.validate(), ConfigError);
  EXPECT_THROW(GuardConfig{.spike_window = 0}.validate(), ConfigError);
}

}  // namespace
}  // namespace trireme::optim

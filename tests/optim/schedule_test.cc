// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "trireme/base/error.h"

namespace trireme::optim {
namespace {

ScheduleConfig schedule(const std::string& decay) {
  return {.learning_rate = 0.5,
          .decay = decay,
          .warmup_steps = 4,
          .final_fraction = 0.1,
          .decay_fraction = 0.25};
}

constexpr const char* kDecays[] = {"cosine", "linear", "wsd", "inverse_sqrt", "constant"};

TEST(Schedule, WarmsUpInAStraightLine) {
  for (const std::string decay : kDecays) {
    EXPECT_DOUBLE_EQ(learning_rate_at(schedule(decay), 0, 21), 0.125);
    EXPECT_DOUBLE_EQ(learning_rate_at(schedule(decay), 2, 21), 0.375);
    EXPECT_DOUBLE_EQ(learning_rate_at(schedule(decay), 3, 21), 0.5);
  }
}

TEST(Schedule, CosineEndsAtTheFinalFraction) {
  const auto config = schedule("cosine");
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 4, 21), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 12, 21), 0.5 * 0.55);  // half way of 4 .. 20
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 20, 21), 0.05);
  for (int step = 5; step < 21; ++step) {
    EXPECT_LT(learning_rate_at(config, step, 21), learning_rate_at(config, step - 1, 21)) << step;
  }
}

TEST(Schedule, LinearFallsInAStraightLineToTheFinalFraction) {
  const auto config = schedule("linear");  // 4 .. 20
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 4, 21), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 8, 21), 0.5 * (1.0 - 0.9 * 4 / 16));
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 19, 21), 0.5 * (1.0 - 0.9 * 15 / 16));
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 20, 21), 0.05);
  auto to_zero = config;
  to_zero.final_fraction = 0.0;
  EXPECT_EQ(learning_rate_at(to_zero, 20, 21), 0.0);
}

// Vaswani et al. 2017, section 5.3, counts steps from 1: d^-0.5 x min(n^-0.5, n x w^-1.5).
TEST(Schedule, InverseSquareRootIsThatOfThePaper) {
  auto config = schedule("inverse_sqrt");
  const double warmup = 4;
  for (int step = 0; step < 100; ++step) {
    const double n = step + 1;
    const double paper = std::min(std::pow(n, -0.5), n * std::pow(warmup, -1.5));
    const double peak = std::pow(warmup, -0.5);
    EXPECT_NEAR(learning_rate_at(config, step, 100), 0.5 * paper / peak, 1e-15) << step;
  }
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 15, 100), 0.25);
  EXPECT_EQ(learning_rate_at(config, 15, 16), learning_rate_at(config, 15, 1000));
  config.warmup_steps = 0;  // as 1
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 0, 100), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 24, 100), 0.1);
}

TEST(Schedule, WsdStaysAndThenFallsInAStraightLine) {
  const auto config = schedule("wsd");  // the last 5 of 20 steps decay
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 4, 20), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 14, 20), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 15, 20), 0.5 * (1.0 - 0.9 / 5));
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 19, 20), 0.05);
}

TEST(Schedule, ConstantStays) {
  EXPECT_DOUBLE_EQ(learning_rate_at(schedule("constant"), 4, 20), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(schedule("constant"), 19, 20), 0.5);
}

TEST(Schedule, ShortRunsAreFinite) {
  for (const std::string decay : kDecays) {
    for (std::int64_t total = 1; total <= 7; ++total) {
      for (std::int64_t step = 0; step < total; ++step) {
        const double rate = learning_rate_at(schedule(decay), step, total);
        EXPECT_GT(rate, 0.0) << decay << " " << step << " of " << total;
        EXPECT_LE(rate, 0.5) << decay << " " << step << " of " << total;
      }
    }
  }
  auto no_decay = schedule("wsd");
  no_decay.decay_fraction = 0.0;
  EXPECT_DOUBLE_EQ(learning_rate_at(no_decay, 19, 20), 0.5);
  EXPECT_THROW(learning_rate_at(schedule("cosine"), 20, 20), InternalError);
}

TEST(ScheduleConfig, RefusesValuesOutOfRange) {
  EXPECT_NO_THROW(ScheduleConfig{}.validate());
  EXPECT_THROW(ScheduleConfig{.learning_rate = 0.0}.validate(), ConfigError);
  EXPECT_THROW(ScheduleConfig{.decay = "step"}.validate(), ConfigError);
  EXPECT_THROW(ScheduleConfig{.warmup_steps = -1}.validate(), ConfigError);
  EXPECT_THROW(ScheduleConfig{.final_fraction = 1.5}.validate(), ConfigError);
  EXPECT_THROW(ScheduleConfig{.decay_fraction = -0.5}.validate(), ConfigError);
}

}  // namespace
}  // namespace trireme::optim

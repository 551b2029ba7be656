// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/schedule.h"

#include <gtest/gtest.h>

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

TEST(Schedule, WarmsUpInAStraightLine) {
  for (const std::string decay : {"cosine", "wsd", "constant"}) {
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
  for (const std::string decay : {"cosine", "wsd", "constant"}) {
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

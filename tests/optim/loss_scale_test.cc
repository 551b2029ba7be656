// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/loss_scale.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"

namespace trireme::optim {
namespace {

using testing::failure_of;
using ::testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(LossScale, DoublesAfterGoodStepsAndHalvesAfterAnOverflow) {
  LossScale scale({.initial = 1024, .growth_interval = 3});
  EXPECT_TRUE(scale.update(1.5));
  EXPECT_TRUE(scale.update(2.5));
  EXPECT_EQ(scale.scale(), 1024);
  EXPECT_TRUE(scale.update(1.25));
  EXPECT_EQ(scale.scale(), 2048);
  EXPECT_EQ(scale.inverse(), 1.0 / 2048);
  EXPECT_TRUE(scale.update(1));
  EXPECT_TRUE(scale.update(1));
  EXPECT_FALSE(scale.update(kInfinity));
  EXPECT_EQ(scale.scale(), 1024);
  EXPECT_TRUE(scale.update(1)) << "an overflow starts the count anew";
  EXPECT_TRUE(scale.update(1));
  EXPECT_EQ(scale.scale(), 1024);
  EXPECT_TRUE(scale.update(1));
  EXPECT_EQ(scale.scale(), 2048);
  EXPECT_FALSE(scale.update(kNaN));
  EXPECT_EQ(scale.state(), (LossScaleState{.scale = 1024, .overflows = 2}));
}

TEST(LossScale, StartsAtTheScaleOfThePaper) {
  LossScale scale;
  EXPECT_EQ(scale.scale(), 65536);
  for (int step = 0; step < 1999; ++step) scale.update(1);
  EXPECT_EQ(scale.scale(), 65536);
  scale.update(1);
  EXPECT_EQ(scale.scale(), 131072);
}

TEST(LossScale, EndsTheRunOnlyAtTheFloor) {
  LossScale scale({.initial = 16, .minimum = 2, .max_consecutive = 3});
  for (const double expected : {8, 4, 2}) {
    EXPECT_FALSE(scale.update(kInfinity));
    EXPECT_EQ(scale.scale(), expected);
  }
  EXPECT_FALSE(scale.update(kNaN));
  EXPECT_FALSE(scale.update(kNaN));
  EXPECT_TRUE(scale.update(1));  // begins the row anew
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(scale.update(kNaN));
  EXPECT_EQ(scale.scale(), 2);
  const std::string text = failure_of([&] { scale.update(kNaN); });
  EXPECT_THAT(text, HasSubstr("loss scale of 2, 4 times in a row"));
  EXPECT_THAT(text, HasSubstr("train in bf16"));
}

TEST(LossScale, AFixedScaleStaysAndSaysSo) {
  LossScale scale({.initial = 512, .growth_interval = 0, .max_consecutive = 1});
  for (int i = 0; i < 5000; ++i) scale.update(1);
  EXPECT_FALSE(scale.update(kInfinity));
  EXPECT_EQ(scale.scale(), 512);
  const std::string text = failure_of([&] { scale.update(kInfinity); });
  EXPECT_THAT(text, HasSubstr("lower LossScaleConfig::initial"));
}

// A loss in f16, times 2^16, is beyond f16.
TEST(LossScale, ScalesInF32) {
  const LossScale scale;
  const at::Tensor loss = at::full({}, 2.5, at::TensorOptions().dtype(at::kHalf));
  const at::Tensor scaled = scale.scaled(loss);
  EXPECT_EQ(scaled.scalar_type(), at::kFloat);
  EXPECT_EQ(scaled.item<float>(), 163840.0f);
}

TEST(LossScale, GoesOnFromItsState) {
  const LossScaleConfig config{.initial = 256, .growth_interval = 4};
  LossScale first(config);
  for (const double norm : {1.0, kNaN, 2.0, 3.0}) first.update(norm);
  LossScale second(config);
  second.set_state(loss_scale_state_from_text(to_text(first.state())));
  EXPECT_EQ(second.state(),
            (LossScaleState{.scale = 128, .good_steps = 2, .overflows = 1, .stuck_overflows = 0}));
  second.update(1);
  second.update(1);
  EXPECT_EQ(second.scale(), 256);
  EXPECT_THROW(loss_scale_state_from_text("65536 1 2"), CheckpointError);
  EXPECT_THROW(second.set_state({.scale = 3}), CheckpointError);
}

TEST(LossScaleConfig, RefusesValuesOutOfRange) {
  EXPECT_NO_THROW(LossScaleConfig{}.validate());
  for (const double scale : {0.0, -2.0, 1000.0, kNaN, kInfinity, 0x1p65, 0x1p-25}) {
    EXPECT_THROW(LossScaleConfig{.initial = scale}.validate(), ConfigError) << scale;
  }
  EXPECT_THROW((LossScaleConfig{.initial = 4, .minimum = 8}.validate()), ConfigError);
  EXPECT_THROW(LossScaleConfig{.growth_interval = -1}.validate(), ConfigError);
  EXPECT_THROW(LossScaleConfig{.max_consecutive = -1}.validate(), ConfigError);
}

}  // namespace
}  // namespace trireme::optim

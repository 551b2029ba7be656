// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/codec_values.h"
#include "trireme/base/error.h"
#include "trireme/comm/codec/block_codecs.h"
#include "trireme/comm/codec/error_feedback.h"
#include "trireme/comm/codec/low_rank_codec.h"
#include "trireme/comm/codec/top_k_codec.h"

namespace trireme {
namespace {

using testing::decoded;
using testing::heavy_tailed_values;
using testing::norm;
using testing::normal_values;

constexpr std::size_t kCount = 2003;

std::vector<std::unique_ptr<Codec>> all_codecs() {
  std::vector<std::unique_ptr<Codec>> codecs;
  codecs.push_back(std::make_unique<Bf16Codec>());
  codecs.push_back(std::make_unique<Int8Codec>());
  codecs.push_back(std::make_unique<TopKCodec>(TopKOptions{.fraction = 0.05}));
  codecs.push_back(std::make_unique<LowRankCodec>(kCount, LowRankOptions{.components = 4}));
  return codecs;
}

// What a gradient is like over time: a part that stays, smaller than the noise around it.
std::vector<float> values_of_step(int step) {
  std::vector<float> values = heavy_tailed_values(kCount, 1000 + static_cast<std::uint64_t>(step));
  const std::vector<float> stays = normal_values(kCount, 1);
  for (std::size_t i = 0; i < kCount; ++i) values[i] = 0.3F * values[i] + 0.1F * stays[i];
  return values;
}

// The norm of what was given less what was decoded, summed over the steps so far: the largest of
// the last 50 of the given number of steps, in units of one step's norm.
double owed(Codec& codec, int steps, bool with_feedback) {
  double largest = 0;
  ErrorFeedback feedback(kCount);
  std::vector<double> difference(kCount);
  std::vector<std::byte> wire(codec.encoded_bytes(kCount));
  for (int step = 0; step < steps; ++step) {
    const std::vector<float> values = values_of_step(step);
    if (with_feedback) {
      feedback.encode(codec, values, wire);
    } else {
      codec.encode(values, wire);
    }
    const std::vector<float> arrived = decoded(codec, wire, kCount);
    for (std::size_t i = 0; i < kCount; ++i) difference[i] += double{values[i]} - arrived[i];
    if (step < steps - 50) continue;
    const std::vector<float> rest(difference.begin(), difference.end());
    largest = std::max(largest, norm(rest));
    if (!with_feedback) continue;
    // The residual is that difference, but for the rounding of its own additions.
    EXPECT_LT(testing::relative_error(feedback.residual(), rest), 1e-3) << codec.name();
  }
  return largest / norm(values_of_step(0));
}

TEST(ErrorFeedback, EverythingArrivesLessABoundedRest) {
  for (const auto& codec : all_codecs()) {
    const double at_150 = owed(*codec, 150, true);
    const double at_300 = owed(*codec, 300, true);
    EXPECT_LT(at_300, at_150 * 1.3) << codec->name();
    // Without it the part that stays is lost in the same way each time, or at random.
    const double without_150 = owed(*codec, 150, false);
    const double without_300 = owed(*codec, 300, false);
    EXPECT_GT(without_300, without_150 * 1.3) << codec->name();
    EXPECT_GT(without_300, at_300 * 2) << codec->name();
  }
}

TEST(ErrorFeedback, PartsAreTheWhole) {
  Int8Codec codec;
  ErrorFeedback whole(40000);
  ErrorFeedback parts(40000);
  const std::vector<float> values = normal_values(40000, 2);
  std::vector<std::byte> expected(codec.encoded_bytes(40000));
  std::vector<std::byte> bytes(expected.size());
  const std::size_t cut = 256 * 70;
  const std::size_t cut_bytes = codec.encoded_bytes(cut);
  for (int step = 0; step < 3; ++step) {
    whole.encode(codec, values, expected);
    parts.encode(codec, std::span(values).subspan(cut), std::span(bytes).subspan(cut_bytes), cut);
    parts.encode(codec, std::span(values).first(cut), std::span(bytes).first(cut_bytes));
    EXPECT_EQ(bytes, expected);
  }
}

TEST(ErrorFeedback, WhatIsNotFiniteLeavesTheResidualAsItWas) {
  for (const auto& codec : all_codecs()) {
    ErrorFeedback feedback(kCount);
    std::vector<std::byte> wire(codec->encoded_bytes(kCount));
    feedback.encode(*codec, values_of_step(0), wire);
    const std::vector<float> before(feedback.residual().begin(), feedback.residual().end());
    std::vector<float> bad = values_of_step(1);
    bad[77] = std::numeric_limits<float>::quiet_NaN();
    feedback.encode(*codec, bad, wire);
    EXPECT_TRUE(std::isnan(decoded(*codec, wire, kCount)[77])) << codec->name();
    const std::vector<float> after(feedback.residual().begin(), feedback.residual().end());
    EXPECT_EQ(after, before) << codec->name();
    feedback.encode(*codec, values_of_step(2), wire);
    for (const float x : decoded(*codec, wire, kCount)) ASSERT_TRUE(std::isfinite(x));
  }
}

// A residual that is written back continues the run it was taken from.
TEST(ErrorFeedback, ResumesFromItsResidual) {
  TopKCodec codec;
  ErrorFeedback first(kCount);
  std::vector<std::byte> wire(codec.encoded_bytes(kCount));
  for (int step = 0; step < 5; ++step) first.encode(codec, values_of_step(step), wire);
  ErrorFeedback second(kCount);
  std::copy(first.residual().begin(), first.residual().end(), second.residual().begin());
  std::vector<std::byte> resumed(wire.size());
  first.encode(codec, values_of_step(5), wire);
  second.encode(codec, values_of_step(5), resumed);
  EXPECT_EQ(resumed, wire);
}

TEST(ErrorFeedback, RefusesSizesThatDoNotFit) {
  Int8Codec codec;
  ErrorFeedback feedback(300);
  std::vector<std::byte> wire(codec.encoded_bytes(301));
  EXPECT_THROW(feedback.encode(codec, std::vector<float>(301), wire), ShapeError);
  wire.resize(codec.encoded_bytes(45));
  EXPECT_THROW(feedback.encode(codec, std::vector<float>(45), wire, 256), ShapeError);
  EXPECT_THROW(feedback.encode(codec, std::vector<float>(44), wire, 256), ShapeError);
}

}  // namespace
}  // namespace trireme

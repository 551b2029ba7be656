// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/support/codec_values.h"
#include "trireme/base/error.h"
#include "trireme/comm/codec/top_k_codec.h"

namespace trireme {
namespace {

using testing::decoded;
using testing::encoded;
using testing::heavy_tailed_values;
using testing::normal_values;
using testing::relative_error;
using testing::there_and_back;

constexpr TopKOptions exactly(double fraction) {
  return {.fraction = fraction, .bf16_values = false};
}

// Sorts all elements: larger magnitudes first, lower indices first among equals.
std::vector<float> reference(const std::vector<float>& values, std::size_t k) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::fabs(values[a]) > std::fabs(values[b]);
  });
  std::vector<float> kept(values.size());
  for (std::size_t i = 0; i < k; ++i) kept[order[i]] = values[order[i]];
  return kept;
}

TEST(TopKCodec, KeepsTheLargest) {
  for (const std::size_t count : {1U, 7U, 31U, 33U, 1000U, 65536U, 65537U, 200001U}) {
    for (const double fraction : {0.001, 0.01, 0.3, 1.0}) {
      TopKCodec codec(exactly(fraction));
      const std::vector<float> values = heavy_tailed_values(count, count);
      const auto k = static_cast<std::size_t>(codec.kept(static_cast<std::int64_t>(count)));
      ASSERT_EQ(k, std::max(1.0, std::round(fraction * static_cast<double>(count))));
      ASSERT_EQ(there_and_back(codec, values), reference(values, k)) << count << " " << fraction;
    }
  }
}

TEST(TopKCodec, TakesTheFirstOfEqualMagnitudes) {
  TopKCodec codec(exactly(0.1));
  std::vector<float> values = normal_values(1000, 1);
  for (std::size_t i = 0; i < values.size(); ++i) {
    // Few different magnitudes of either sign, so that the threshold is met many times.
    values[i] = std::round(values[i]);
  }
  EXPECT_EQ(there_and_back(codec, values), reference(values, 100));
  const std::vector<float> zeros(50);
  EXPECT_EQ(there_and_back(codec, zeros), zeros);
  EXPECT_EQ(codec.decode_sparse(encoded(codec, zeros), 50).back().index, 4U);
}

TEST(TopKCodec, RatioIsExact) {
  // 1 % of a million: 4 bytes each, and 16 section counts.
  EXPECT_EQ(TopKCodec().encoded_bytes(1000000), 10000U * 4 + 16 * 4);
  EXPECT_EQ(TopKCodec(exactly(0.01)).encoded_bytes(1000000), 10000U * 6 + 16 * 4);
  EXPECT_NEAR(compression_ratio(TopKCodec(), 1000000), 99.84, 0.001);
  EXPECT_EQ(TopKCodec().encoded_bytes(0), 0U);
  EXPECT_EQ(TopKCodec().encoded_bytes(1), 8U);
}

TEST(TopKCodec, ErrorsAreThoseOfTheDocumentation) {
  const std::vector<float> normal = normal_values(1 << 20, 3);
  const std::vector<float> heavy = heavy_tailed_values(1 << 20, 3);
  TopKCodec codec;
  EXPECT_NEAR(relative_error(there_and_back(codec, normal), normal), 0.957, 0.001);
  EXPECT_NEAR(relative_error(there_and_back(codec, heavy), heavy), 0.730, 0.01);
}

TEST(TopKCodec, LostIsWhatDecodingLacksAndMayLieOnTheValues) {
  TopKCodec codec({.fraction = 0.05});
  const std::vector<float> values = normal_values(3000, 4);
  std::vector<float> lost(values.size(), 5.0F);
  const auto bytes = encoded(codec, values, lost);
  const std::vector<float> back = decoded(codec, bytes, values.size());
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(lost[i], values[i] - back[i]);
  std::vector<float> both = values;
  EXPECT_EQ(encoded(codec, both, both), bytes);
  EXPECT_EQ(both, lost);
}

TEST(TopKCodec, WhatIsNotFiniteGoesFirst) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  TopKCodec codec({.fraction = 0.01});
  std::vector<float> values = normal_values(1000, 5);
  for (std::size_t i = 0; i < 20; ++i) values[i * 40] = i % 2 == 0 ? nan : -infinity;
  std::vector<float> lost(values.size());
  const std::vector<float> back = decoded(codec, encoded(codec, values, lost), values.size());
  EXPECT_EQ(std::count_if(back.begin(), back.end(), [](float x) { return std::isnan(x); }), 10);
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(lost[i], i % 40 == 0 && i < 800 ? 0.0F : values[i]) << i;
  }
}

TEST(TopKCodec, RefusesWhatCannotBe) {
  for (const double fraction : {0.0, -1.0, 1.5, std::nan("")}) {
    EXPECT_THROW(TopKCodec({.fraction = fraction}), ConfigError);
  }
  TopKCodec codec;
  std::vector<float> values(100);
  std::vector<std::byte> bytes(7);
  EXPECT_THROW(codec.encode(values, bytes), ShapeError);
  EXPECT_THROW(codec.decode(bytes, values), ShapeError);
}

// Every byte of a small encoding, every value: an answer or a CommError, never an index outside.
TEST(TopKCodec, RefusesDamagedBytes) {
  TopKCodec codec({.fraction = 0.2});
  std::vector<float> values = normal_values(20, 6);
  const std::vector<std::byte> good = encoded(codec, values);
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int x = 0; x < 256; ++x) {
      std::vector<std::byte> bad = good;
      bad[at] = static_cast<std::byte>(x);
      try {
        codec.decode(bad, values);
      } catch (const CommError&) {
        ++refused;
      }
    }
  }
  // Every other count (4 bytes), every index above 19 in the low byte and above 0 in the high one.
  EXPECT_GT(refused, 4 * 255 + 4 * 236 + 4 * 255 - 1);
}

TEST(TopKCodec, BytesAreTheSameEverywhere) {
  std::vector<float> values(70001);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((i * 7919) % 10007) - 5003.0F;
  }
  TopKCodec codec;
  EXPECT_EQ(testing::digest(encoded(codec, values)), 8765071792428479703u);
}

}  // namespace
}  // namespace trireme

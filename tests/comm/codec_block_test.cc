// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "tests/support/codec_values.h"
#include "tests/support/reference_tree.h"
#include "trireme/base/error.h"
#include "trireme/comm/codec/block_codecs.h"

namespace trireme {
namespace {

using testing::decoded;
using testing::encoded;
using testing::heavy_tailed_values;
using testing::normal_values;
using testing::relative_error;
using testing::there_and_back;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<std::unique_ptr<Codec>> block_codecs() {
  std::vector<std::unique_ptr<Codec>> codecs;
  codecs.push_back(std::make_unique<Bf16Codec>());
  codecs.push_back(std::make_unique<Int8Codec>());
  return codecs;
}

TEST(Bf16Codec, RoundsEveryElementToNearestEven) {
  Bf16Codec codec;
  const std::vector<float> values = heavy_tailed_values(1237, 1);
  const std::vector<float> back = there_and_back(codec, values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t bits = testing::encode_small_float(values[i], 7);
    ASSERT_EQ(back[i], static_cast<float>(testing::decode_small_float(bits, 7))) << i;
    ASSERT_LE(std::fabs(back[i] - values[i]), std::fabs(values[i]) * 0x1.0p-8F) << i;
  }
}

// From the words of the header, in f64 and one element at a time.
TEST(Int8Codec, IsTheNearestOf255LevelsOfItsBlock) {
  Int8Codec codec;
  const std::vector<float> values = heavy_tailed_values(256 * 3 + 77, 2);
  const std::vector<float> back = there_and_back(codec, values);
  for (std::size_t block = 0; block < values.size(); block += 256) {
    const std::size_t end = std::min(values.size(), block + 256);
    double largest = 0;
    for (std::size_t i = block; i < end; ++i) {
      largest = std::max(largest, std::fabs(double{values[i]}));
    }
    const double scale = largest / 127;
    std::vector<bool> seen(255);
    for (std::size_t i = block; i < end; ++i) {
      const double level = std::round(back[i] / scale);
      ASSERT_NEAR(back[i], level * scale, largest * 1e-6) << i;
      ASSERT_LE(std::fabs(back[i] - values[i]), scale / 2 + largest * 1e-6) << i;
      ASSERT_LE(std::fabs(level), 127) << i;
      seen[static_cast<std::size_t>(level + 127)] = true;
    }
    EXPECT_TRUE(seen[0] || seen[254]) << "the largest element has the last level";
  }
}

TEST(Int8Codec, RoundsHalvesToEven) {
  Int8Codec codec;
  const std::vector<float> back =
      there_and_back(codec, std::vector<float>{127.0F, 0.5F, 1.5F, -2.5F, -127.0F, 126.5F});
  EXPECT_EQ(back, (std::vector<float>{127.0F, 0.0F, 2.0F, -2.0F, -127.0F, 126.0F}));
}

// Any magnitude that has a scale, and the ones below.
TEST(Int8Codec, TakesTheWholeRangeOfFloats) {
  Int8Codec codec;
  for (int exponent = -149; exponent < 128; ++exponent) {
    const float x = std::ldexp(1.0F, exponent);
    const std::vector<float> back = there_and_back(codec, std::vector<float>{x, -x, 0.0F});
    const float expected = exponent < -119 ? 0.0F : x;
    EXPECT_NEAR(back[0] / x, expected / x, 1e-6) << exponent;
    EXPECT_EQ(back[1], -back[0]) << exponent;
    EXPECT_EQ(back[2], 0.0F) << exponent;
  }
  const float largest = std::numeric_limits<float>::max();
  EXPECT_TRUE(std::isfinite(there_and_back(codec, std::vector<float>{largest})[0]));
}

TEST(BlockCodecs, RatiosAreExact) {
  EXPECT_EQ(compression_ratio(Bf16Codec(), 1000001), 2.0);
  EXPECT_EQ(compression_ratio(Int8Codec(), 256 * 1000), 4.0 * 256 / 260);
  EXPECT_EQ(Int8Codec().encoded_bytes(0), 0U);
  EXPECT_EQ(Int8Codec().encoded_bytes(1), 5U);
  EXPECT_EQ(Int8Codec().encoded_bytes(256), 260U);
  EXPECT_EQ(Int8Codec().encoded_bytes(257), 265U);
}

// Measured, not bounded: data and arithmetic are the same everywhere.
TEST(BlockCodecs, ErrorsAreThoseOfTheDocumentation) {
  const std::vector<float> normal = normal_values(1 << 20, 3);
  const std::vector<float> heavy = heavy_tailed_values(1 << 20, 3);
  Bf16Codec bf16;
  Int8Codec int8;
  EXPECT_NEAR(relative_error(there_and_back(bf16, normal), normal), 0.00166, 0.00001);
  EXPECT_NEAR(relative_error(there_and_back(bf16, heavy), heavy), 0.00166, 0.00002);
  EXPECT_NEAR(relative_error(there_and_back(int8, normal), normal), 0.0069, 0.0001);
  EXPECT_NEAR(relative_error(there_and_back(int8, heavy), heavy), 0.0162, 0.0003);
}

TEST(BlockCodecs, LostIsWhatDecodingLacksAndMayLieOnTheValues) {
  for (const auto& codec : block_codecs()) {
    const std::vector<float> values = normal_values(1500, 4);
    std::vector<float> lost(values.size(), 5.0F);
    const auto bytes = encoded(*codec, values, lost);
    const std::vector<float> back = decoded(*codec, bytes, values.size());
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(lost[i], values[i] - back[i]);
    std::vector<float> both = values;
    EXPECT_EQ(encoded(*codec, both, both), bytes);
    EXPECT_EQ(both, lost);
  }
}

TEST(BlockCodecs, EncodingsOfPartsAreThePartsOfTheEncoding) {
  for (const auto& codec : block_codecs()) {
    const std::vector<float> values = normal_values(2000, 5);
    const auto whole = encoded(*codec, values);
    const auto cut = static_cast<std::size_t>(codec->granularity()) * 3;
    auto parts = encoded(*codec, std::span(values).first(cut));
    const auto rest = encoded(*codec, std::span(values).subspan(cut));
    parts.insert(parts.end(), rest.begin(), rest.end());
    EXPECT_EQ(parts, whole) << codec->name();
  }
}

TEST(BlockCodecs, WhatIsNotFiniteDecodesToWhatIsNotFinite) {
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    std::vector<float> values = normal_values(1000, 6);
    values[300] = bad;
    std::vector<float> lost(values.size());
    Bf16Codec bf16;
    std::vector<float> back = decoded(bf16, encoded(bf16, values, lost), values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(std::isfinite(back[i]), i != 300) << i;
      ASSERT_EQ(lost[i], i == 300 ? 0.0F : values[i] - back[i]) << i;
    }
    Int8Codec int8;
    back = decoded(int8, encoded(int8, values, lost), values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const bool in_block = i / 256 == 300 / 256;
      ASSERT_EQ(std::isnan(back[i]), in_block) << i;
      ASSERT_EQ(lost[i], in_block ? 0.0F : values[i] - back[i]) << i;
    }
  }
}

// The bits of all machines and vector widths.
TEST(BlockCodecs, BytesAreTheSameEverywhere) {
  std::vector<float> values(5003);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] =
        std::ldexp(static_cast<float>((i * 7919) % 10007) - 5003.0F, static_cast<int>(i % 11) - 20);
  }
  Bf16Codec bf16;
  Int8Codec int8;
  std::vector<float> lost(values.size());
  EXPECT_EQ(testing::digest(encoded(bf16, values)), 1617846234469624546u);
  EXPECT_EQ(testing::digest(encoded(int8, values, lost)), 8300439234436633899u);
  EXPECT_EQ(testing::digest(std::as_bytes(std::span(lost))), 12448441091458232716u);
}

TEST(BlockCodecs, RefuseSizesThatDoNotFit) {
  for (const auto& codec : block_codecs()) {
    std::vector<float> values(100);
    std::vector<std::byte> bytes(codec->encoded_bytes(100));
    std::vector<float> lost(99);
    EXPECT_THROW(codec->encode(values, bytes, lost), ShapeError);
    bytes.pop_back();
    EXPECT_THROW(codec->encode(values, bytes), ShapeError);
    EXPECT_THROW(codec->decode(bytes, values), ShapeError);
  }
}

TEST(BlockCodecs, TakeNothing) {
  for (const auto& codec : block_codecs()) {
    EXPECT_TRUE(there_and_back(*codec, {}).empty());
  }
}

}  // namespace
}  // namespace trireme

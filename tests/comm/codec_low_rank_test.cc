// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/codec_values.h"
#include "trireme/base/error.h"
#include "trireme/comm/codec/low_rank_codec.h"

namespace trireme {
namespace {

using testing::decoded;
using testing::encoded;
using testing::normal_values;
using testing::relative_error;
using testing::there_and_back;

// A matrix of exactly that many components, the last row cut short.
std::vector<float> matrix_of(std::size_t rows, std::size_t cols, std::size_t components,
                             std::size_t count) {
  const std::vector<float> left = normal_values(rows * components, 11);
  const std::vector<float> right = normal_values(cols * components, 12);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < components; ++j) {
      sum += double{left[i / cols * components + j]} * right[i % cols * components + j];
    }
    values[i] = static_cast<float>(sum);
  }
  return values;
}

// One power iteration finds the column space of a matrix that has no more components.
TEST(LowRankCodec, IsExactForAMatrixOfItsRank) {
  for (const int components : {1, 2, 3, 4, 5, 8}) {
    const auto r = static_cast<std::size_t>(components);
    const std::vector<float> values = matrix_of(37, 53, r, 37 * 53);
    LowRankCodec codec(37 * 53, {.components = components, .rows = 37});
    EXPECT_LT(relative_error(there_and_back(codec, values), values), 1e-5) << components;
  }
}

// Its missing end counts as 0, which makes one component more.
TEST(LowRankCodec, TheLastRowMayBeShort) {
  const std::size_t count = 36 * 53 + 40;
  std::vector<float> values = matrix_of(37, 53, 2, count);
  LowRankCodec codec(static_cast<std::int64_t>(count), {.components = 3, .rows = 37});
  EXPECT_LT(relative_error(there_and_back(codec, values), values), 1e-5);
}

TEST(LowRankCodec, ColumnsOfPAreOrthonormal) {
  const std::size_t rows = 301;
  LowRankCodec codec(301 * 301, {.components = 6, .rows = 301});
  // Columns that differ by little, in magnitudes from 1e-25 to 1e25.
  const std::vector<float> noise = normal_values(rows * 6, 13);
  std::vector<float> p(rows * 6);
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double size = std::pow(10.0, static_cast<double>(i / rows) * 10 - 25);
    p[i] = static_cast<float>(size * (std::sin(static_cast<double>(i % rows)) + 0.01 * noise[i]));
  }
  codec.orthonormalize(p);
  for (std::size_t a = 0; a < 6; ++a) {
    for (std::size_t b = 0; b <= a; ++b) {
      double dot = 0;
      for (std::size_t i = 0; i < rows; ++i) dot += double{p[a * rows + i]} * p[b * rows + i];
      EXPECT_NEAR(dot, a == b ? 1 : 0, 1e-5) << a << " " << b;
    }
  }
}

TEST(LowRankCodec, DependentColumnsBecomeZeroAndStartAnew) {
  LowRankCodec codec(40 * 40, {.components = 3, .rows = 40});
  const std::vector<float> zeros(1600);
  EXPECT_EQ(there_and_back(codec, zeros), zeros);
  const std::vector<float> one = matrix_of(40, 40, 1, 1600);
  EXPECT_LT(relative_error(there_and_back(codec, one), one), 1e-5);
  const std::vector<float> three = matrix_of(40, 40, 3, 1600);
  EXPECT_LT(relative_error(there_and_back(codec, three), three), 1e-5);
}

// Components of falling weight: repeated use finds the heaviest, as a warm start should.
TEST(LowRankCodec, GetsBetterOnTheSameMatrix) {
  const std::size_t n = 64;
  std::vector<float> values(n * n);
  for (std::size_t j = 0; j < 8; ++j) {
    const std::vector<float> left = normal_values(n, 100 + j);
    const std::vector<float> right = normal_values(n, 200 + j);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] += std::ldexp(left[i / n] * right[i % n], -static_cast<int>(j));
    }
  }
  LowRankCodec codec(static_cast<std::int64_t>(values.size()), {.components = 3});
  const double first = relative_error(there_and_back(codec, values), values);
  double last = first;
  for (int i = 0; i < 10; ++i) last = relative_error(there_and_back(codec, values), values);
  // What the best approximation leaves: components 3 to 7 of 2^-j each.
  EXPECT_LT(last, 0.16);
  EXPECT_LT(last, first * 0.99);
}

TEST(LowRankCodec, RatioIsExact) {
  EXPECT_EQ(LowRankCodec(1000 * 500, {.components = 4, .rows = 1000}).encoded_bytes(1000 * 500),
            4U * 4 * 1500);
  EXPECT_EQ(compression_ratio(LowRankCodec(1 << 20, {.components = 4}), 1 << 20), 128.0);
}

TEST(LowRankCodec, LostIsWhatDecodingLacksAndMayLieOnTheValues) {
  const std::vector<float> values = normal_values(700, 14);
  LowRankCodec codec(700, {.components = 2});
  LowRankCodec alike(700, {.components = 2});
  std::vector<float> lost(values.size(), 5.0F);
  const auto bytes = encoded(codec, values, lost);
  const std::vector<float> back = decoded(codec, bytes, values.size());
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(lost[i], values[i] - back[i]);
  std::vector<float> both = values;
  EXPECT_EQ(encoded(alike, both, both), bytes);
  EXPECT_EQ(both, lost);
}

TEST(LowRankCodec, WhatIsNotFiniteSpoilsOneUseOnly) {
  for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    LowRankCodec codec(900, {.components = 2});
    std::vector<float> values = normal_values(900, 15);
    values[123] = bad;
    std::vector<float> lost(values.size());
    for (const float x : decoded(codec, encoded(codec, values, lost), values.size())) {
      ASSERT_TRUE(std::isnan(x));
    }
    for (const float x : lost) ASSERT_EQ(x, 0.0F);
    values[123] = 0;
    for (const float x : there_and_back(codec, values)) ASSERT_TRUE(std::isfinite(x));
  }
}

TEST(LowRankCodec, BytesAreTheSameEverywhere) {
  std::vector<float> values(101 * 67 - 9);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((i * 7919) % 10007) - 5003.0F;
  }
  LowRankCodec codec(static_cast<std::int64_t>(values.size()), {.components = 5, .rows = 101});
  std::vector<float> lost(values.size());
  EXPECT_EQ(testing::digest(encoded(codec, values, lost)), 17477007714089217590u);
  EXPECT_EQ(testing::digest(std::as_bytes(std::span(lost))), 6944853983224254568u);
}

TEST(LowRankCodec, RefusesWhatCannotBe) {
  EXPECT_THROW(LowRankCodec(0), ConfigError);
  EXPECT_THROW(LowRankCodec(100, {.components = 0}), ConfigError);
  EXPECT_THROW(LowRankCodec(100, {.components = 11}), ConfigError);
  EXPECT_THROW(LowRankCodec(100, {.components = 1, .rows = 101}), ConfigError);
  LowRankCodec codec(100);
  EXPECT_THROW(codec.encoded_bytes(99), ShapeError);
}

}  // namespace
}  // namespace trireme

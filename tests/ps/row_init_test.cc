// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_init.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "trireme/base/random.h"

namespace trireme::ps {
namespace {

constexpr std::uint64_t kSeed = 0x0123456789ABCDEF;
constexpr std::uint64_t kIds[] = {0, 1, 987654321, std::uint64_t{1} << 32, ~std::uint64_t{0}};

std::vector<float> row_of(const RowInit& init, std::uint64_t id, std::int64_t width) {
  std::vector<float> row(static_cast<std::size_t>(width), -9.0F);
  init.fill(id, width, row.data());
  return row;
}

// The four words of which values 4 block .. 4 block + 3 come.
std::array<std::uint32_t, 4> words(std::uint64_t id, std::uint32_t block) {
  const std::uint64_t key = XXH3_64bits_withSeed("users", 5, kSeed);
  return philox4x32(
      {static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32), block, 0},
      {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)});
}

TEST(RowInit, UniformIsPhilox) {
  const RowInit init("uniform", 0.3, kSeed, "users");
  for (const std::uint64_t id : kIds) {
    const std::vector<float> row = row_of(init, id, 203);
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::uint32_t word = words(id, static_cast<std::uint32_t>(i / 4))[i % 4];
      const double unit = static_cast<double>(word >> 8) / (1 << 23) - 1.0;
      ASSERT_EQ(row[i], static_cast<float>(unit) * 0.3F) << "value " << i << " of row " << id;
    }
  }
}

// Series and roundings in f32: some last bits of a value up to 6.
TEST(RowInit, NormalIsBoxAndMullers) {
  constexpr double kTolerance = 4e-6;
  const RowInit init("normal", 1.0, kSeed, "users");
  for (const std::uint64_t id : kIds) {
    const std::vector<float> row = row_of(init, id, 1026);
    for (std::size_t i = 0; i < row.size(); i += 2) {
      const auto block = words(id, static_cast<std::uint32_t>(i / 4));
      const std::uint32_t first = block[i % 4], second = block[i % 4 + 1];
      const double u = double{static_cast<float>(first >> 8) + 0.5F} / (1 << 24);
      // Quarters are of the top two bits; angles in a quarter go from -pi/4 to pi/4.
      const double in_quarter = static_cast<double>((second << 2) >> 8) / (1 << 24) - 0.5;
      const double angle = std::numbers::pi / 2 * ((second >> 30) + in_quarter);
      const double radius = std::sqrt(-2 * std::log(u));
      ASSERT_NEAR(row[i], radius * std::cos(angle), kTolerance) << i << " of " << id;
      ASSERT_NEAR(row[i + 1], radius * std::sin(angle), kTolerance) << i + 1 << " of " << id;
    }
  }
}

TEST(RowInit, NormalHasTheMomentsOfANormal) {
  const RowInit init("normal", 2.0, kSeed, "users");
  constexpr int kRows = 2000, kWidth = 100;
  double moments[4] = {};
  for (int id = 0; id < kRows; ++id) {
    for (const float value : row_of(init, static_cast<std::uint64_t>(id), kWidth)) {
      const double x = value / 2.0;
      for (int k = 0; k < 4; ++k) moments[k] += std::pow(x, k + 1) / (kRows * kWidth);
    }
  }
  // Five standard deviations of such means.
  const double deviation = 5 / std::sqrt(kRows * kWidth);
  EXPECT_NEAR(moments[0], 0, deviation);
  EXPECT_NEAR(moments[1], 1, deviation * std::sqrt(2));
  EXPECT_NEAR(moments[2], 0, deviation * std::sqrt(15));
  EXPECT_NEAR(moments[3], 3, deviation * std::sqrt(96));
}

TEST(RowInit, DependsOnSeedNameAndIdAlone) {
  const RowInit init("normal", 1.0, kSeed, "users");
  const std::vector<float> row = row_of(init, 5, 70);
  EXPECT_EQ(row, row_of(RowInit("normal", 1.0, kSeed, "users"), 5, 70));
  EXPECT_NE(row, row_of(RowInit("normal", 1.0, kSeed + 1, "users"), 5, 70));
  EXPECT_NE(row, row_of(RowInit("normal", 1.0, kSeed, "items"), 5, 70));
  EXPECT_NE(row, row_of(init, 6, 70));
  EXPECT_NE(row, row_of(init, 5 + (std::uint64_t{1} << 32), 70));
}

TEST(RowInit, AShorterRowIsTheBeginningOfALongerOne) {
  for (const char* kind : {"uniform", "normal"}) {
    const RowInit init(kind, 0.5, kSeed, "users");
    const std::vector<float> all = row_of(init, 77, 300);
    for (std::int64_t width = 1; width < 300; ++width) {
      const std::vector<float> row = row_of(init, 77, width);
      ASSERT_EQ(std::memcmp(row.data(), all.data(), row.size() * sizeof(float)), 0) << width;
    }
  }
}

TEST(RowInit, ZerosAreZeros) {
  EXPECT_EQ(row_of(RowInit("zeros", 1.0, kSeed, "users"), 3, 67), std::vector<float>(67, 0.0F));
}

// A change here makes rows that no gradient has reached others than a snapshot's readers expect.
TEST(RowInit, IsFrozen) {
  std::uint64_t hashes[2];
  for (int k = 0; k < 2; ++k) {
    const RowInit init(k == 0 ? "uniform" : "normal", 0.7, kSeed, "users");
    std::vector<float> all;
    for (std::uint64_t id = 0; id < 100; ++id) {
      const std::vector<float> row = row_of(init, id * id * id, 97);
      all.insert(all.end(), row.begin(), row.end());
    }
    hashes[k] = XXH3_64bits(all.data(), all.size() * sizeof(float));
  }
  EXPECT_EQ(hashes[0], 1403931220887759780U);
  EXPECT_EQ(hashes[1], 14027063490738512085U);
}

}  // namespace
}  // namespace trireme::ps

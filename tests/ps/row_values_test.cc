// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "trireme/base/random.h"

namespace trireme::ps {
namespace {

constexpr std::uint64_t kSeed = 42;

std::vector<float> values_of(RowInit init, double scale, std::uint64_t id, std::int64_t width,
                             const std::string& table = "users", std::uint64_t seed = kSeed) {
  std::vector<float> row(static_cast<std::size_t>(width));
  RowValues(init, scale, seed, table).fill(id, width, row.data());
  return row;
}

// The bits of value v, from base/random.h.
std::uint32_t bits_of(std::uint64_t id, std::uint32_t v) {
  const std::uint64_t key = RandomStream(kSeed, "rows of table users").bits(0);
  const std::uint32_t block = 16 * (v / 64) + v % 16;
  return philox4x32(
      {static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32), block, 0},
      {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)})[(v / 16) % 4];
}

TEST(RowValues, AreThoseOfPhilox) {
  for (const std::uint64_t id : {std::uint64_t{0}, std::uint64_t{7} << 40, ~std::uint64_t{0}}) {
    const std::vector<float> row = values_of(RowInit::kUniform, 0.5, id, 131);
    for (std::uint32_t v = 0; v < row.size(); ++v) {
      const double share = static_cast<double>(bits_of(id, v) >> 8) / (1 << 24);
      ASSERT_EQ(row[v], static_cast<float>(share - 0.5)) << "id " << id << ", value " << v;
    }
  }
}

// Phi(value) is the number whose quantile it is.
TEST(RowValues, OfNormalRowsAreQuantiles) {
  double largest = 0;
  for (std::uint64_t id = 0; id < 5000; ++id) {
    const std::vector<float> row = values_of(RowInit::kNormal, 1.0, id, 67);
    for (std::uint32_t v = 0; v < row.size(); ++v) {
      const double p = (bits_of(id, v) + 0.5) * 0x1.0p-32;
      const double value = row[v], tail = std::min(p, 1 - p);
      largest = std::max(largest, std::abs(value));
      // An f32's half unit in the last place times the density, beside the algorithm's own 1e-7.
      const double density = std::exp(-value * value / 2) / std::sqrt(2 * std::acos(-1.0));
      const double error = std::abs(value) * 2e-7 * density + 1e-12;
      ASSERT_NEAR(0.5 * std::erfc(std::abs(value) / std::sqrt(2.0)), tail, error) << "p " << p;
      ASSERT_EQ(value < 0, p < 0.5);
    }
  }
  EXPECT_GT(largest, 4.4);  // 335 000 values
}

TEST(RowValues, DependOnIdTableAndSeedAlone) {
  const std::vector<float> row = values_of(RowInit::kNormal, 0.1, 5, 10);
  EXPECT_EQ(values_of(RowInit::kNormal, 0.1, 5, 10), row);
  EXPECT_NE(values_of(RowInit::kNormal, 0.1, 6, 10), row);
  EXPECT_NE(values_of(RowInit::kNormal, 0.1, 5, 10, "items"), row);
  EXPECT_NE(values_of(RowInit::kNormal, 0.1, 5, 10, "users", kSeed + 1), row);
  EXPECT_EQ(values_of(RowInit::kZeros, 0.1, 5, 10), std::vector<float>(10));
  // Wider rows begin with the same values.
  std::vector<float> wide = values_of(RowInit::kNormal, 0.1, 5, 200);
  wide.resize(10);
  EXPECT_EQ(wide, row);
}

TEST(RowValues, DoNotChangeFromReleaseToRelease) {
  const auto some = [](RowInit init) {
    const std::vector<float> row = values_of(init, 1.0, 3, 70);
    return std::vector<float>{row[0], row[1], row[69]};
  };
  EXPECT_EQ(some(RowInit::kUniform),
            (std::vector<float>{-0.51777041F, 0.263188362F, -0.971513748F}));
  // Their last bit rests on the C library's logarithm.
  EXPECT_THAT(some(RowInit::kNormal),
              ::testing::Pointwise(::testing::FloatEq(),
                                   std::vector<float>{-0.702721059F, 0.336078644F, -2.1905241F}));
}

}  // namespace
}  // namespace trireme::ps

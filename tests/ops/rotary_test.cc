// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/rotary.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::Layout;
using testing::normal;
using testing::rotary_operation;

std::vector<testing::Operation> rotations() {
  return {rotary_operation({.B = 1, .T = 1, .H = 1, .D = 2}),
          rotary_operation({.B = 2, .T = 45, .H = 3, .D = 22}),
          rotary_operation({.B = 1, .T = 130, .H = 5, .D = 80})};
}

TEST(Rotary, TurnsPairsByPositionTimesFrequency) {
  const auto x = normal({2, 3, 2, 6}, 1);
  const auto turned = ops::rotate(x, ops::rotary_table(4, 3, 6, 100.0, x.options()));
  const auto at = [](const at::Tensor& y, std::int64_t t, std::int64_t d) {
    return y[1][t][1][d].item<double>();
  };
  for (std::int64_t t = 0; t < 3; ++t) {
    for (std::int64_t d = 0; d < 3; ++d) {
      const double angle =
          static_cast<double>(t + 4) * std::pow(100.0, -2.0 * static_cast<double>(d) / 6.0);
      const double a = at(x, t, d), b = at(x, t, d + 3);
      EXPECT_NEAR(at(turned, t, d), a * std::cos(angle) - b * std::sin(angle), 1e-12);
      EXPECT_NEAR(at(turned, t, d + 3), b * std::cos(angle) + a * std::sin(angle), 1e-12);
    }
  }
}

// Angles of far positions keep their precision.
TEST(Rotary, FarPositionsAreExact) {
  const auto table = ops::rotary_table(1'000'003, 1, 8, 10000.0, at::TensorOptions(at::kFloat));
  EXPECT_EQ(table.cos.scalar_type(), at::kFloat);
  for (std::int64_t d = 0; d < 4; ++d) {
    const double angle = 1'000'003.0 * std::pow(10000.0, -static_cast<double>(d) / 4.0);
    EXPECT_NEAR(table.cos[0][0][d].item<double>(), std::cos(angle), 1e-6) << d;
  }
}

TEST(Rotary, PositionsMayBeInAnyOrder) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto all = ops::rotary_table(0, 20, 8, 100.0, at::TensorOptions(dtype));
    const auto positions = torch::tensor({17, 3, 4, 0, 19}, at::kLong);
    const auto some = ops::rotary_table(positions, 8, 100.0, at::TensorOptions(dtype));
    EXPECT_TRUE(some.cos.equal(all.cos.index_select(0, positions)));
    EXPECT_TRUE(some.sin.equal(all.sin.index_select(0, positions)));
    EXPECT_THROW(ops::rotary_table(positions.to(at::kInt), 8, 100.0, at::TensorOptions(dtype)),
                 ShapeError);
    EXPECT_THROW(ops::rotary_table(positions, 7, 100.0, at::TensorOptions(dtype)), ShapeError);
  }
}

TEST(Rotary, GradientsAreThoseOfFiniteDifferences) {
  testing::expect_gradients_of_differences(rotations());
}

TEST(Rotary, KernelsFollowF64) {
  testing::expect_follow_f64(rotations(),
                             {Layout::kPlain, Layout::kStrided, Layout::kExpandedGradients});
}

TEST(Rotary, RefusesWhatDoesNotFit) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto x = torch::ones({2, 3, 2, 6}, dtype);
    const auto table = [&](std::int64_t tokens, std::int64_t width) {
      return ops::rotary_table(0, tokens, width, 100.0, x.options());
    };
    EXPECT_THROW(ops::rotate(x, table(2, 6)), ShapeError);
    EXPECT_THROW(ops::rotate(x, table(4, 6)), ShapeError);
    EXPECT_THROW(ops::rotate(x, table(3, 4)), ShapeError);
    EXPECT_THROW(ops::rotate(x[0], table(3, 6)), ShapeError);
    EXPECT_THROW(ops::rotate(x.narrow(3, 0, 5), table(3, 4)), ShapeError);
    EXPECT_THROW(ops::rotate(x, {}), ShapeError);
    EXPECT_THROW(table(3, 5), ShapeError);
  }
}

}  // namespace
}  // namespace trireme

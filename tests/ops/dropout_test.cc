// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/dropout.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "tests/support/compute_threads.h"
#include "tests/support/error_text.h"
#include "tests/support/operations_of_training.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using testing::leaf;
using testing::normal;

at::Tensor rows(std::int64_t first, std::int64_t count) {
  return torch::arange(first, first + count, at::kLong);
}

TEST(Dropout, LeavesOutItsShareAndKeepsTheMean) {
  const auto x = torch::ones({500, 203});
  for (const double share : {0.05, 0.25, 0.9}) {
    const auto y = ops::dropout(x, {.share = share, .seed = 3, .place = 1, .rows_N = rows(7, 500)});
    const double dropped = y.eq(0).to(at::kDouble).mean().item<double>();
    // 5 deviations of 101,500 draws.
    EXPECT_NEAR(dropped, share, 5 * std::sqrt(share * (1 - share) / 101500)) << share;
    const double kept = y.max().item<double>();
    EXPECT_NEAR(kept, 1 / (1 - share), 1e-4 / (1 - share)) << share;
    EXPECT_TRUE(y.eq(0).logical_or(y.eq(kept)).all().item<bool>());
    // Every column and every row, too: 6 deviations.
    const auto by_column = y.eq(0).to(at::kDouble).mean(0),
               by_row = y.eq(0).to(at::kDouble).mean(1);
    const double deviation = std::sqrt(share * (1 - share));
    EXPECT_LT((by_column - share).abs().max().item<double>(), 6 * deviation / std::sqrt(500.0));
    EXPECT_LT((by_row - share).abs().max().item<double>(), 6 * deviation / std::sqrt(203.0));
  }
}

TEST(Dropout, IsAFunctionOfTheRowNumberWhereverItLies) {
  const auto x = normal({6, 19}, 1);
  const ops::DropoutMask all{.share = 0.3, .seed = 5, .place = 2, .rows_N = rows(40, 6)};
  const auto expected = ops::dropout(x, all);
  const auto order = torch::tensor({4, 1, 5}, at::kLong);
  ops::DropoutMask some = all;
  some.rows_N = all.rows_N.index_select(0, order);
  EXPECT_TRUE(ops::dropout(x.index_select(0, order), some).equal(expected.index_select(0, order)));
  // As [2, 3, 19], too.
  ops::DropoutMask folded = all;
  folded.rows_N = all.rows_N.view({2, 3});
  EXPECT_TRUE(ops::dropout(x.view({2, 3, 19}), folded).view({6, 19}).equal(expected));
}

TEST(Dropout, SeedsPlacesAndRowsHaveTheirOwnMasks) {
  const auto x = torch::ones({20, 64});
  const ops::DropoutMask mask{.share = 0.5, .seed = 5, .place = 2, .rows_N = rows(40, 20)};
  const auto first = ops::dropout(x, mask);
  ops::DropoutMask seed = mask, place = mask, far = mask;
  seed.seed = std::uint64_t{5} << 32;
  place.place = 3;
  far.rows_N = mask.rows_N + (std::int64_t{1} << 40);
  for (const ops::DropoutMask& other : {seed, place, far}) {
    // Half of 1280 elements differ: 6 deviations.
    const double differing = ops::dropout(x, other).ne(first).to(at::kDouble).sum().item<double>();
    EXPECT_NEAR(differing, 640, 6 * 18);
  }
}

TEST(Dropout, GradientsGoWhereValuesWent) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto x = leaf(torch::ones({30, 21}), dtype);
    const auto y = ops::dropout(x, {.share = 0.25, .seed = 1, .place = 0, .rows_N = rows(0, 30)});
    y.backward(torch::ones_like(y));
    EXPECT_TRUE(x.grad().equal(y.detach())) << dtype;
    EXPECT_EQ(y.scalar_type(), dtype);
  }
}

TEST(Dropout, ADroppedNaNIsZero) {
  const auto x = torch::full({100, 8}, std::numeric_limits<float>::quiet_NaN());
  const auto y = ops::dropout(x, {.share = 0.5, .seed = 1, .place = 0, .rows_N = rows(0, 100)});
  EXPECT_NEAR(y.eq(0).to(at::kDouble).mean().item<double>(), 0.5, 0.1);
  EXPECT_NEAR(y.isnan().to(at::kDouble).mean().item<double>(), 0.5, 0.1);
}

TEST(Dropout, ThreadsDoNotMatter) {
  const auto x = normal({300, 129}, 1).to(at::kFloat);
  const auto run = [&](int threads) {
    const testing::ComputeThreads compute_threads(threads);
    return ops::dropout(x, {.share = 0.1, .seed = 1, .place = 9, .rows_N = rows(3, 300)});
  };
  EXPECT_TRUE(run(1).equal(run(3)));
}

TEST(Dropout, OfNothingIsTheTensorItself) {
  const auto x = normal({3, 5}, 1);
  EXPECT_TRUE(ops::dropout(x, {.rows_N = rows(0, 3)}).is_same(x));
}

TEST(Dropout, RefusesWhatDoesNotFit) {
  const auto x = normal({3, 5}, 1);
  const auto refusal = [](const at::Tensor& given, const ops::DropoutMask& mask) {
    return testing::failure_of([&] { ops::dropout(given, mask); });
  };
  EXPECT_THAT(refusal(x, {.share = 0.5}), HasSubstr("ShapeError"));
  EXPECT_THAT(refusal(x, {.share = 0.5, .rows_N = rows(0, 4)}), HasSubstr("ShapeError"));
  EXPECT_THAT(refusal(x, {.share = 1, .rows_N = rows(0, 3)}),
              HasSubstr("dropout of a share of 1: 0 or above, and below 1"));
  EXPECT_THAT(refusal(x.to(at::kHalf), {.share = 0.5, .rows_N = rows(0, 3)}),
              HasSubstr("ShapeError"));
}

}  // namespace
}  // namespace trireme

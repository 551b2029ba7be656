// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/weight_average.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "trireme/base/error.h"

namespace trireme::optim {
namespace {

// More than two blocks of the CPU's passes, and no multiple of anything.
constexpr std::int64_t kElements = 600'011;

// Weights of a step: distinct by element and by step.
at::Tensor weights_at(std::int64_t step) {
  const at::Tensor weights = at::zeros({kElements}, at::TensorOptions().dtype(at::kFloat));
  float* data = weights.data_ptr<float>();
  for (std::int64_t i = 0; i < kElements; ++i) {
    data[i] = 0.001F * static_cast<float>((i * 7919 + step * 104729) % 20011) - 7.3F;
  }
  return weights;
}

// The whole cut at the given places.
std::vector<PieceUpdate> cut(const at::Tensor& whole, const std::vector<std::int64_t>& places) {
  std::vector<PieceUpdate> pieces;
  std::int64_t begin = 0;
  for (const std::int64_t end : places) {
    pieces.push_back({whole.narrow(0, begin, end - begin), {}, {}});
    begin = end;
  }
  pieces.push_back({whole.narrow(0, begin, whole.numel() - begin), {}, {}});
  return pieces;
}

at::Tensor average_after(std::int64_t steps, const std::vector<std::int64_t>& places) {
  WeightAverage average(0.25, cut(weights_at(0), places));
  for (std::int64_t step = 1; step <= steps; ++step) {
    average.update(cut(weights_at(step), places));
  }
  return average.values();
}

TEST(WeightAverage, IsTheFormulaOfTheHeaderElementByElement) {
  const at::Tensor averages = average_after(5, {});
  for (const std::int64_t i : {std::int64_t{0}, std::int64_t{1}, std::int64_t{262144},
                               std::int64_t{524289}, kElements - 1}) {
    float expected = weights_at(0).data_ptr<float>()[i];
    for (std::int64_t t = 0; t < 5; ++t) {
      const double warm = (1.0 + static_cast<double>(t)) / (10.0 + static_cast<double>(t));
      const auto share = static_cast<float>(1 - std::min(0.25, warm));
      const volatile float difference = weights_at(t + 1).data_ptr<float>()[i] - expected;
      const volatile float change = difference * share;  // volatile: each rounds on its own
      expected += change;
    }
    EXPECT_EQ(averages.data_ptr<float>()[i], expected) << i;
  }
}

TEST(WeightAverage, DoesNotDependOnTheCut) {
  const at::Tensor whole = average_after(3, {});
  EXPECT_TRUE(at::equal(average_after(3, {4096, 4096, 300'001}), whole));
  EXPECT_TRUE(at::equal(average_after(3, {1, 262'145, 600'010}), whole));
}

TEST(WeightAverage, SwapsInAndOutBitForBit) {
  const at::Tensor weights = weights_at(3);
  WeightAverage average(0.5, cut(weights_at(0), {1000, 400'000}));
  const std::vector<PieceUpdate> pieces = cut(weights, {1000, 400'000});
  average.update(pieces);
  const at::Tensor averages = average.values().clone();
  average.swap(pieces);
  EXPECT_TRUE(at::equal(weights, averages));
  EXPECT_TRUE(at::equal(average.values(), weights_at(3)));
  EXPECT_THROW(average.update(pieces), Error);
  average.swap(pieces);
  EXPECT_TRUE(at::equal(weights, weights_at(3)));
  EXPECT_TRUE(at::equal(average.values(), averages));
  EXPECT_NO_THROW(average.update(pieces));
}

TEST(WeightAverage, GoesOnFromItsValuesAndUpdates) {
  WeightAverage first(0.9, cut(weights_at(0), {}));
  first.update(cut(weights_at(1), {}));
  first.update(cut(weights_at(2), {}));
  WeightAverage second(0.9, cut(weights_at(5), {77}));
  second.values().copy_(first.values());
  second.set_updates(first.updates());
  first.update(cut(weights_at(3), {}));
  second.update(cut(weights_at(3), {77}));
  EXPECT_EQ(second.updates(), 3);
  EXPECT_TRUE(at::equal(first.values(), second.values()));
}

TEST(WeightAverage, RefusesOtherPiecesAndDecays) {
  EXPECT_THROW(WeightAverage(0.0, {}), ConfigError);
  EXPECT_THROW(WeightAverage(1.0, {}), ConfigError);
  EXPECT_THROW(WeightAverage(0.5, cut(weights_at(0).to(at::kDouble), {})), ShapeError);
  WeightAverage average(0.5, cut(weights_at(0), {}));
  const at::Tensor shorter = weights_at(1).narrow(0, 0, kElements - 1);
  EXPECT_THROW(average.update(cut(shorter, {})), ShapeError);
  EXPECT_THROW(average.swap(cut(shorter, {})), ShapeError);
}

}  // namespace
}  // namespace trireme::optim

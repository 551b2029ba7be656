// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/loss.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::Layout;
using testing::leaf;
using testing::loss_operation;
using testing::normal;
using testing::Operation;

// Rows across blocks of 256, columns across blocks of 1024.
std::vector<Operation> losses() {
  return {loss_operation(1, 1, 3, false),     loss_operation(5, 3, 1, false),
          loss_operation(255, 37, 20, false), loss_operation(256, 5, 7, true),
          loss_operation(257, 1025, 9, true), loss_operation(530, 61, 131, true),
          loss_operation(40, 2500, 17, false)};
}

TEST(Loss, CompositionIsTheMeanOfMinusLogSoftmax) {
  const auto x = normal({5, 4}, 1) * 3, weight = normal({9, 4}, 2) * 3;
  const auto targets = torch::tensor(std::vector<std::int64_t>{8, 0, ops::kIgnoredTarget, 3, 3});
  double expected = 0.0;
  for (const std::int64_t n : {0, 1, 3, 4}) {
    const auto logits = weight.matmul(x[n]);
    const auto log_sum = logits.exp().sum().log();
    expected += (log_sum - logits[targets[n].item<std::int64_t>()]).item<double>() / 4;
  }
  const auto loss = ops::linear_cross_entropy(x, weight, targets);
  EXPECT_NEAR(loss.item<double>(), expected, 1e-12);
  EXPECT_EQ(loss.scalar_type(), at::kDouble);
}

TEST(Loss, GradientsAreThoseOfFiniteDifferences) {
  testing::expect_gradients_of_differences(losses());
}

TEST(Loss, KernelsFollowF64) {
  testing::expect_follow_f64(losses(), {Layout::kPlain, Layout::kStrided});
}

// The value alone is far more exact than a tensor's tolerance says: logits are f32, sums over rows
// f64.
TEST(Loss, TheValueIsExactInBothDtypes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = normal({530, 20}, 1).to(dtype), weight = normal({61, 20}, 2).to(dtype);
    const auto targets = testing::indices_below({530}, 61);
    const auto loss = ops::linear_cross_entropy(x, weight, targets);
    EXPECT_EQ(loss.scalar_type(), at::kFloat);
    const double expected =
        ops::linear_cross_entropy(x.to(at::kDouble), weight.to(at::kDouble), targets)
            .item<double>();
    EXPECT_NEAR(loss.item<double>(), expected, 1e-6 * expected) << dtype;
  }
}

TEST(Loss, IsTheSameWithAndWithoutGradient) {
  const auto x = normal({300, 20}, 1).to(at::kFloat), weight = normal({61, 20}, 2).to(at::kFloat);
  const auto targets = testing::indices_below({300}, 61);
  const auto plain = ops::linear_cross_entropy(x, weight, targets);
  EXPECT_FALSE(plain.requires_grad());
  const auto trained = ops::linear_cross_entropy(leaf(x, at::kFloat), weight, targets);
  EXPECT_TRUE(trained.requires_grad());
  EXPECT_TRUE(trained.detach().equal(plain));
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(ops::linear_cross_entropy(leaf(x, at::kFloat), weight, targets).equal(plain));
}

TEST(Loss, IsZeroWithoutTargets) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto x = leaf(normal({300, 5}, 1), dtype), weight = leaf(normal({7, 5}, 2), dtype);
    const auto targets = torch::full({300}, ops::kIgnoredTarget, at::kLong);
    const auto loss = ops::linear_cross_entropy(x, weight, targets);
    loss.backward();
    EXPECT_EQ(loss.item<double>(), 0.0) << dtype;
    EXPECT_EQ(x.grad().abs().max().item<double>(), 0.0) << dtype;
    EXPECT_EQ(weight.grad().abs().max().item<double>(), 0.0) << dtype;
  }
}

// Logits of a thousand: exp of them is no f32.
TEST(Loss, LargeLogitsDoNotOverflow) {
  Operation operation = loss_operation(20, 37, 9, false);
  operation.inputs[0] = operation.inputs[0] * 300;
  testing::expect_follows_f64(operation, {at::kFloat, 1e-3});  // logits err by 2^-24 x 2000 x 3
}

TEST(Loss, NaNIsNotHidden) {
  auto x = normal({300, 5}, 1).to(at::kFloat);
  const auto weight = normal({37, 5}, 2).to(at::kFloat);
  x[280][3] = std::numeric_limits<float>::quiet_NaN();
  const auto targets = testing::indices_below({300}, 37);
  EXPECT_TRUE(std::isnan(ops::linear_cross_entropy(x, weight, targets).item<double>()));
}

TEST(Loss, BackwardMayRunTwice) {
  const auto x = leaf(normal({20, 5}, 1), at::kFloat), weight = leaf(normal({7, 5}, 2), at::kFloat);
  const auto loss = ops::linear_cross_entropy(x, weight, testing::indices_below({20}, 7));
  loss.backward({}, /*retain_graph=*/true);
  const auto x_once = x.grad().clone(), weight_once = weight.grad().clone();
  loss.backward();
  EXPECT_TRUE(x.grad().equal(2 * x_once));
  EXPECT_TRUE(weight.grad().equal(2 * weight_once));
}

TEST(Loss, RefusesWhatDoesNotFit) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto ones = [&](at::IntArrayRef shape) { return torch::ones(shape, dtype); };
    const auto x = ones({3, 5}), weight = ones({7, 5}), zeros = torch::zeros({3}, at::kLong);
    const auto loss = [](const at::Tensor& a, const at::Tensor& w, const at::Tensor& t) {
      ops::linear_cross_entropy(a, w, t);
    };
    EXPECT_THROW(loss(ones({1, 3, 5}), weight, zeros), ShapeError);
    EXPECT_THROW(loss(x, ones({7, 4}), zeros), ShapeError);
    EXPECT_THROW(loss(x, ones({5}), zeros), ShapeError);
    EXPECT_THROW(loss(x, ones({0, 5}), zeros), ShapeError);
    EXPECT_THROW(loss(x, weight.to(at::kHalf), zeros), ShapeError);
    EXPECT_THROW(loss(x, weight, torch::zeros({4}, at::kLong)), ShapeError);
    EXPECT_THROW(loss(x, weight, torch::zeros({3}, at::kInt)), ShapeError);
    EXPECT_THROW(loss(x, weight, torch::zeros({3, 1}, at::kLong)), ShapeError);
    EXPECT_THROW(loss(ones({0, 5}), weight, torch::zeros({0}, at::kLong)), ShapeError);
    EXPECT_THROW(loss(x, weight, torch::tensor({0, 7, 0}, at::kLong)), c10::IndexError);
    EXPECT_THROW(loss(x, weight, torch::tensor({0, 0, -1}, at::kLong)), c10::IndexError);
  }
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/linear.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::gelu_mlp_operation;
using testing::Layout;
using testing::leaf;
using testing::linear_operation;
using testing::normal;
using testing::Operation;
using testing::swiglu_mlp_operation;

// Whole numbers, of which products and sums are exact in f32 and bf16.
at::Tensor whole_numbers(at::IntArrayRef shape, std::int64_t modulus) {
  const std::int64_t count = c10::multiply_integers(shape);
  return ((torch::arange(count, at::kLong) * 7) % modulus - modulus / 2)
      .to(at::kDouble)
      .view(shape);
}

TEST(LinearOp, IsTheProductAndItsGradientsExactly) {
  const auto x = whole_numbers({2, 3, 5}, 5), weight = whole_numbers({7, 5}, 3),
             bias = whole_numbers({7}, 5), y_grad = whole_numbers({2, 3, 7}, 3);
  const auto expected = x.matmul(weight.t()) + bias;
  const auto rows = y_grad.view({6, 7});
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto x_leaf = leaf(x, dtype), w_leaf = leaf(weight, dtype), b_leaf = leaf(bias, dtype);
    const auto y = ops::linear(x_leaf, w_leaf, b_leaf);
    EXPECT_EQ(y.scalar_type(), dtype);
    EXPECT_TRUE(y.to(at::kDouble).equal(expected)) << dtype;
    y.backward(y_grad.to(dtype));
    EXPECT_TRUE(x_leaf.grad().to(at::kDouble).equal(y_grad.matmul(weight))) << dtype;
    EXPECT_TRUE(w_leaf.grad().to(at::kDouble).equal(rows.t().matmul(x.view({6, 5})))) << dtype;
    EXPECT_TRUE(b_leaf.grad().to(at::kDouble).equal(rows.sum(0))) << dtype;
  }
}

std::vector<Operation> layers() {
  return {linear_operation(1, 1, 1, true),      linear_operation(1, 513, 5, true),
          linear_operation(67, 45, 259, false), linear_operation(67, 519, 133, true),
          gelu_mlp_operation(1, 3, 2),          gelu_mlp_operation(131, 70, 150),
          gelu_mlp_operation(30, 601, 530),     swiglu_mlp_operation(1, 3, 2),
          swiglu_mlp_operation(131, 70, 150),   swiglu_mlp_operation(30, 601, 530)};
}

TEST(LinearOp, GradientsAreThoseOfFiniteDifferences) {
  testing::expect_gradients_of_differences(layers());
}

TEST(LinearOp, KernelsFollowF64) {
  testing::expect_follow_f64(layers(),
                             {Layout::kPlain, Layout::kStrided, Layout::kExpandedGradients});
}

TEST(LinearOp, MlpsAreTheirFormulas) {
  const auto x = normal({3, 4}, 1), up = normal({6, 4}, 2), gate = normal({6, 4}, 3),
             down = normal({5, 6}, 4), up_bias = normal({6}, 5), down_bias = normal({5}, 6);
  const auto before = x.matmul(up.t()) + up_bias;
  const auto cubic = before + 0.044715 * before.pow(3);
  const auto gelu = 0.5 * before * (1 + (std::sqrt(2 / M_PI) * cubic).tanh());
  const auto g = x.matmul(gate.t());
  const auto hidden = g / (1 + g.neg().exp()) * x.matmul(up.t());
  EXPECT_TRUE(ops::gelu_mlp(x, up, up_bias, down, down_bias)
                  .allclose(gelu.matmul(down.t()) + down_bias, 1e-12, 1e-12));
  EXPECT_TRUE(ops::swiglu_mlp(x, gate, up, down).allclose(hidden.matmul(down.t()), 1e-12, 1e-12));
}

TEST(LinearOp, MlpsGoWithoutBiases) {
  for (const auto& precision : {testing::kF32, testing::kBf16}) {
    Operation operation = gelu_mlp_operation(20, 7, 9);
    operation.inputs = {operation.inputs[0], operation.inputs[1], operation.inputs[3]};
    operation.run = [](const testing::Tensors& t) {
      return testing::Tensors{ops::gelu_mlp(t[0], t[1], {}, t[2], {})};
    };
    testing::expect_follows_f64(operation, precision);
  }
}

// Rows of x that are not evenly spaced; a weight by columns, and a slice of one.
TEST(LinearOp, TakesViews) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = whole_numbers({5, 6, 4}, 5).to(dtype).permute({2, 1, 0});
    const auto weight = whole_numbers({14, 5}, 3).to(dtype).slice(0, 0, 14, 2);
    EXPECT_TRUE(ops::linear(x, weight, {}).equal(at::linear(x, weight))) << dtype;
    const auto column = whole_numbers({3, 9}, 5).to(dtype).narrow(1, 4, 1);
    const auto wide = whole_numbers({7, 1}, 5).to(dtype);
    EXPECT_TRUE(ops::linear(column, wide, {}).equal(at::linear(column, wide))) << dtype;
  }
}

TEST(LinearOp, ComputesOnlyTheGradientsAskedFor) {
  const auto x = normal({6, 5}, 1).to(at::kFloat), weight = normal({7, 5}, 2).to(at::kFloat);
  EXPECT_FALSE(ops::linear(x, weight, {}).requires_grad());
  const auto trained = weight.clone().requires_grad_();
  ops::linear(x, trained, {}).sum().backward();
  EXPECT_TRUE(trained.grad()[3].allclose(x.sum(0)));
  const auto moved = x.clone().requires_grad_();
  ops::linear(moved, weight, {}).sum().backward();
  EXPECT_TRUE(moved.grad()[3].allclose(weight.sum(0)));
  EXPECT_FALSE(weight.grad().defined());
}

TEST(LinearOp, HandlesEmptyDims) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto ones = [&](at::IntArrayRef shape) { return torch::ones(shape, dtype); };
    EXPECT_EQ(ops::linear(ones({0, 5}), ones({7, 5}), {}).sizes(), at::IntArrayRef({0, 7}));
    EXPECT_EQ(ops::linear(ones({2, 5}), ones({0, 5}), {}).sizes(), at::IntArrayRef({2, 0}));
    EXPECT_TRUE(ops::linear(ones({2, 0}), ones({7, 0}), ones({7})).equal(ones({2, 7})));
    EXPECT_TRUE(
        ops::gelu_mlp(ones({2, 5}), ones({0, 5}), {}, ones({3, 0}), ones({3})).equal(ones({2, 3})));
    EXPECT_TRUE(ops::swiglu_mlp(ones({2, 5}), ones({0, 5}), ones({0, 5}), ones({3, 0}))
                    .equal(ones({2, 3}) * 0));
  }
}

// In every dtype: what the kernels cannot take, LibTorch's composition is not asked either.
TEST(LinearOp, RefusesWhatDoesNotFit) {
  const auto other = at::kHalf;
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const auto ones = [&](at::IntArrayRef shape) { return torch::ones(shape, dtype); };
    const auto x = ones({2, 5}), up = ones({7, 5}), down = ones({3, 7});
    EXPECT_THROW(ops::linear(x, ones({7, 4}), {}), ShapeError);
    EXPECT_THROW(ops::linear(x, ones({5}), {}), ShapeError);
    EXPECT_THROW(ops::linear(ones({}), up, {}), ShapeError);
    EXPECT_THROW(ops::linear(x, up.to(other), {}), ShapeError);
    EXPECT_THROW(ops::linear(x, up, ones({6})), ShapeError);
    EXPECT_THROW(ops::linear(x, up, ones({1, 7})), ShapeError);
    EXPECT_THROW(ops::linear(x, up, ones({7}).to(other)), ShapeError);
    EXPECT_THROW(ops::gelu_mlp(x, ones({7, 4}), {}, down, {}), ShapeError);
    EXPECT_THROW(ops::gelu_mlp(x, up, ones({6}), down, {}), ShapeError);
    EXPECT_THROW(ops::gelu_mlp(x, up, {}, ones({3, 6}), {}), ShapeError);
    EXPECT_THROW(ops::gelu_mlp(x, up, {}, ones({7}), {}), ShapeError);
    EXPECT_THROW(ops::gelu_mlp(x, up, {}, down.to(other), {}), ShapeError);
    EXPECT_THROW(ops::gelu_mlp(x, up, {}, down, ones({2})), ShapeError);
    EXPECT_THROW(ops::gelu_mlp(x, up, {}, down, ones({3}).to(other)), ShapeError);
    EXPECT_THROW(ops::swiglu_mlp(x, ones({7, 4}), up, down), ShapeError);
    EXPECT_THROW(ops::swiglu_mlp(x, ones({6, 5}), up, down), ShapeError);
    EXPECT_THROW(ops::swiglu_mlp(x, up, up.to(other), down), ShapeError);
    EXPECT_THROW(ops::swiglu_mlp(x, up, up, ones({3, 6})), ShapeError);
    EXPECT_THROW(ops::swiglu_mlp(x, up, up, down.to(other)), ShapeError);
  }
}

}  // namespace
}  // namespace trireme

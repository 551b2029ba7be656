// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/linear.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

namespace trireme {
namespace {

at::Tensor ramp(at::IntArrayRef shape, double scale) {
  std::int64_t count = 1;
  for (const auto dim : shape) {
    count *= dim;
  }
  return (torch::arange(count, at::kDouble) * scale).sin().view(shape);
}

nn::Linear ramp_linear() {
  nn::Linear linear(5, 3, nn::LinearOptions{.bias = true});
  linear->to(at::kDouble);
  const at::NoGradGuard no_grad;
  linear->weight().copy_(ramp({3, 5}, 0.7));
  linear->bias().copy_(ramp({3}, 1.3));
  return linear;
}

TEST(Linear, MultipliesByTheTransposedWeight) {
  auto linear = ramp_linear();
  const auto x = ramp({2, 4, 5}, 0.3);
  const auto expected = x.matmul(linear->weight().t()) + linear->bias();
  EXPECT_TRUE(linear(x).allclose(expected, 1e-12, 1e-12));
}

// The shape of a sharded layer: input hook, product, output hook (a sum over ranks), then bias.
TEST(Linear, HooksRunBeforeTheProductAndBeforeTheBias) {
  auto linear = ramp_linear();
  linear->set_hooks([](const at::Tensor& x) { return x + 1.0; },
                    [](const at::Tensor& y) { return y * 3.0; });
  const auto x = ramp({2, 5}, 0.3).requires_grad_();
  const auto expected = (x + 1.0).matmul(linear->weight().t()) * 3.0 + linear->bias();
  const auto y = linear(x);
  EXPECT_TRUE(y.allclose(expected, 1e-12, 1e-12));
  y.sum().backward();
  EXPECT_TRUE(x.grad().allclose(3.0 * linear->weight().sum(0).expand({2, 5}), 1e-12, 1e-12));
  EXPECT_TRUE(linear->bias().grad().allclose(at::full({3}, 2.0, at::kDouble)));
}

TEST(Linear, ATiedLayerSharesTheMatrixAndOwnsNothing) {
  nn::Embedding embedding(7, 5);
  nn::Linear head(embedding->weight());
  EXPECT_TRUE(head->parameters().empty());
  EXPECT_TRUE(head->weight().is_same(embedding->weight()));
  embedding->to(at::kDouble);
  EXPECT_EQ(head->weight().scalar_type(), at::kDouble);
}

TEST(Embedding, LooksUpRowsAndRunsItsHooks) {
  nn::Embedding embedding(7, 3);
  {
    const at::NoGradGuard no_grad;
    embedding->weight().copy_(ramp({7, 3}, 0.4));
  }
  const auto indices = torch::tensor({6, 0, 6, 2}, at::kLong).view({2, 2});
  EXPECT_TRUE(embedding(indices)[1][0].equal(embedding->weight()[6]));
  embedding->set_hooks([](const at::Tensor& i) { return i.clamp_max(4); },
                       [](const at::Tensor& rows) { return rows * 2.0; });
  EXPECT_TRUE(embedding(indices)[0][0].equal(2.0 * embedding->weight()[4]));
}

TEST(Embedding, GradientAddsUpRepeatedRows) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    nn::Embedding embedding(7, 3);
    embedding->to(dtype);
    const auto indices = torch::tensor({6, 0, 6, 2, 6}, at::kLong);
    embedding(indices).backward(torch::ones({5, 3}, dtype));
    const auto counts = torch::tensor({1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 3.0}).view({7, 1});
    EXPECT_TRUE(embedding->weight().grad().to(at::kFloat).equal(counts.expand({7, 3})));
  }
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// An MLP that computes its hidden values again gives the bits of one that kept them.

#include <gtest/gtest.h>
#include <torch/types.h>

#include <vector>

#include "trireme/ops/kernels/element.h"
#include "trireme/ops/linear.h"

namespace trireme {
namespace {

using ops::HiddenValues;
using Tensors = std::vector<at::Tensor>;

at::Tensor wave(at::IntArrayRef shape, double frequency, double size, at::ScalarType dtype) {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) count *= dim;
  const at::Tensor values = (torch::arange(count, at::kDouble) * frequency).sin() * size;
  return values.to(dtype).view(shape).requires_grad_(true);
}

// The output and the gradients of all inputs.
template <class Mlp>
Tensors run(const Mlp& mlp, const Tensors& inputs) {
  for (const at::Tensor& input : inputs) input.mutable_grad().reset();
  const at::Tensor out = mlp(inputs);
  (out.to(at::kFloat) * torch::arange(out.numel(), at::kFloat).cos().view(out.sizes()))
      .sum()
      .backward();
  Tensors results{out.detach()};
  for (const at::Tensor& input : inputs) results.push_back(input.grad().clone());
  return results;
}

void expect_identical(const Tensors& a, const Tensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_GT(a[i].abs().max().item<double>(), 0) << i;
    EXPECT_TRUE(a[i].equal(b[i])) << i;
  }
}

class HiddenValuesTest : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Dtypes, HiddenValuesTest, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) {
                           return test.param == at::kFloat ? "f32" : "bf16";
                         });

// 71 hidden values: more than a tile, and no multiple of any vector.
TEST_P(HiddenValuesTest, GeluMlp) {
  const auto dtype = GetParam();
  const Tensors inputs = {wave({3, 29, 40}, 0.7, 1.5, dtype), wave({71, 40}, 1.1, 0.6, dtype),
                          wave({71}, 2.3, 0.5, dtype), wave({40, 71}, 1.7, 0.3, dtype),
                          wave({40}, 0.9, 0.5, dtype)};
  const auto mlp = [](HiddenValues hidden) {
    return [hidden](const Tensors& in) {
      return ops::gelu_mlp(in[0], in[1], in[2], in[3], in[4], hidden);
    };
  };
  expect_identical(run(mlp(HiddenValues::kKept), inputs),
                   run(mlp(HiddenValues::kComputedAgain), inputs));
}

TEST_P(HiddenValuesTest, SwigluMlp) {
  const auto dtype = GetParam();
  const Tensors inputs = {wave({3, 29, 40}, 0.7, 1.5, dtype), wave({71, 40}, 1.1, 0.6, dtype),
                          wave({71, 40}, 2.3, 0.6, dtype), wave({40, 71}, 1.7, 0.3, dtype)};
  const auto mlp = [](HiddenValues hidden) {
    return
        [hidden](const Tensors& in) { return ops::swiglu_mlp(in[0], in[1], in[2], in[3], hidden); };
  };
  expect_identical(run(mlp(HiddenValues::kKept), inputs),
                   run(mlp(HiddenValues::kComputedAgain), inputs));
}

}  // namespace
}  // namespace trireme

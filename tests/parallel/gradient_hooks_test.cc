// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/gradient_hooks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "trireme/nn/linear.h"
#include "trireme/ops/parameter_gradient.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

at::Tensor leaf(double value) { return torch::full({3}, value, at::kDouble).requires_grad_(true); }

TEST(GradientHooks, CallOncePerPassInItsOrderAfterTheSum) {
  const std::vector<at::Tensor> parameters{leaf(2), leaf(3), leaf(5)};
  std::vector<std::size_t> calls;
  const GradientHooks hooks(parameters, [&](std::size_t i, bool) {
    calls.push_back(i);
    EXPECT_TRUE(parameters[i].grad().defined()) << i;
  });
  const auto loss = [&] {
    const at::Tensor early = (parameters[1] * parameters[1]).exp();  // used twice
    return (early * parameters[0]).sum();
  };
  loss().backward();
  EXPECT_THAT(calls, ElementsAre(0U, 1U)) << "the last operation's first; 2 took no part";
  const at::Tensor once = parameters[1].grad().clone();
  loss().backward();
  EXPECT_THAT(calls, ElementsAre(0U, 1U, 0U, 1U));
  EXPECT_TRUE(parameters[1].grad().equal(2 * once));
}

TEST(GradientHooks, SayNothingWhenGradientsAreReturned) {
  const std::vector<at::Tensor> parameters{leaf(2)};
  int calls = 0;
  const GradientHooks hooks(parameters, [&](std::size_t, bool) { ++calls; });
  torch::autograd::grad({(parameters[0] * 3).sum()}, {parameters[0]});
  EXPECT_EQ(calls, 0);
}

TEST(GradientHooks, EndWithTheirObject) {
  const std::vector<at::Tensor> parameters{leaf(2), leaf(3)};
  const auto loss = [&] { return (parameters[0] * parameters[1]).sum(); };
  std::vector<std::size_t> first_calls, second_calls;
  auto first = std::make_optional<GradientHooks>(
      parameters, [&](std::size_t i, bool) { first_calls.push_back(i); });
  std::optional<GradientHooks> second(std::in_place, std::vector<at::Tensor>{parameters[1]},
                                      [&](std::size_t i, bool) { second_calls.push_back(i); });
  loss().backward();
  EXPECT_THAT(first_calls, UnorderedElementsAre(0U, 1U));
  EXPECT_THAT(second_calls, ElementsAre(0U)) << "a number of its own";
  const at::Tensor built_before = loss();
  first.reset();
  loss().backward();
  built_before.backward();
  EXPECT_EQ(first_calls.size(), 2U);
  EXPECT_EQ(second_calls.size(), 3U);
  second.reset();
  loss().backward();
  EXPECT_EQ(second_calls.size(), 3U);
}

TEST(GradientHooks, EndThePassByWhatTheyThrow) {
  const std::vector<at::Tensor> parameters{leaf(2), leaf(3)};
  const GradientHooks hooks(parameters, [&](std::size_t i, bool) {
    if (i == 1) throw std::runtime_error("no more");
  });
  const at::Tensor loss = ((parameters[0] * 7).exp() * parameters[1]).sum();
  EXPECT_THROW(loss.backward(), std::runtime_error);
  EXPECT_FALSE(parameters[0].grad().defined()) << "came later";
}

// A bf16 layer's gradients are added in f32 by the layer itself; autograd has nothing to add.
TEST(GradientHooks, AreCalledWhereTheOperationAddedTheGradientItself) {
  nn::Linear layer(5, 3, nn::LinearOptions{.bias = true});
  layer->to(at::kBFloat16);
  std::vector<at::Tensor> parameters = layer->parameters();
  for (at::Tensor& parameter : parameters) {
    torch::NoGradGuard no_grad;
    parameter.fill_(0.5);
    parameter.mutable_grad() = torch::zeros(parameter.sizes());
  }
  std::vector<std::size_t> calls;
  const GradientHooks hooks(parameters, [&](std::size_t i, bool) {
    calls.push_back(i);
    EXPECT_GT(parameters[i].grad().abs().min().item<double>(), 0.0) << "complete by now";
  });
  {
    const ops::DirectGradients direct;
    layer->forward(torch::ones({4, 5}, at::kBFloat16)).sum().backward();
  }
  EXPECT_THAT(calls, UnorderedElementsAre(0U, 1U));
  EXPECT_TRUE(parameters[0].grad().equal(torch::full({3, 5}, 4.0)));
}

TEST(GradientHooks, OfNothingAreNothing) {
  const GradientHooks hooks({}, [](std::size_t, bool) { FAIL(); });
}

}  // namespace
}  // namespace trireme

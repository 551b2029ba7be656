// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/parameter_gradient.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/types.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ops::DirectGradients;
using testing::Evaluation;
using testing::Layout;
using testing::leaf;
using testing::normal;
using testing::Operation;
using testing::Tensors;

void set_gradient(const at::Tensor& parameter, const at::Tensor& gradient) {
  at::Tensor(parameter).mutable_grad() = gradient;
}

// A parameter with a gradient in f32, zero.
at::Tensor parameter(const at::Tensor& values, at::ScalarType dtype) {
  const at::Tensor result = leaf(values, dtype);
  set_gradient(result, torch::zeros(values.sizes()));
  return result;
}

// Leaves of an operation, its parameters with gradients.
Tensors leaves_with_gradients(const Operation& operation, at::ScalarType dtype) {
  Tensors leaves = testing::leaves_of(operation.inputs, dtype);
  for (std::size_t i = operation.num_activations; i < leaves.size(); ++i) {
    set_gradient(leaves[i], torch::zeros(leaves[i].sizes()));
  }
  return leaves;
}

TEST(DirectGradients, LandInPlaceAndEqualTheReturnedOnes) {
  for (const Operation& operation : testing::operations_of_training()) {
    const Evaluation expected = testing::evaluate(operation, operation.inputs, at::kFloat);
    const Tensors leaves = leaves_with_gradients(operation, at::kFloat);
    std::vector<void*> places;
    for (const at::Tensor& each : leaves) {
      places.push_back(each.grad().defined() ? each.grad().data_ptr() : nullptr);
    }
    const DirectGradients direct;
    testing::evaluate_at(operation, leaves, Layout::kPlain);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      EXPECT_TRUE(leaves[i].grad().equal(expected.gradients[i])) << operation.name << ", " << i;
      if (i >= operation.num_activations) {
        EXPECT_EQ(leaves[i].grad().data_ptr(), places[i]) << operation.name << ", " << i;
      }
    }
  }
}

// Of a bf16 parameter: what f64 says of the rounded inputs, as exactly as f32 can hold it.
TEST(DirectGradients, OfBf16ParametersAreNotRoundedToBf16) {
  for (const Operation& operation : {testing::linear_operation(67, 45, 259, true),
                                     testing::embedding_operation(3, 101, 13, 45, true),
                                     testing::norm_operation(testing::NormKind::kLayer, 37, 83)}) {
    Tensors rounded;
    for (const at::Tensor& input : operation.inputs) rounded.push_back(input.to(at::kBFloat16));
    const Evaluation expected = testing::evaluate(operation, rounded, at::kDouble);
    const Tensors leaves = leaves_with_gradients(operation, at::kBFloat16);
    const DirectGradients direct;
    testing::evaluate_at(operation, leaves, Layout::kPlain);
    for (std::size_t i = operation.num_activations; i < leaves.size(); ++i) {
      EXPECT_EQ(leaves[i].grad().scalar_type(), at::kFloat);
      testing::expect_close(leaves[i].grad(), expected.gradients[i], testing::kF32.tolerance,
                            operation.name);
    }
  }
}

// Sums that bf16 does not have: it ends at 256, and has no 4002.
TEST(DirectGradients, AddUpOverBackwardPasses) {
  const auto table = parameter(torch::zeros({5, 3}), at::kBFloat16),
             weight = parameter(torch::zeros({2, 3}), at::kBFloat16),
             bias = parameter(torch::zeros({2}), at::kBFloat16);
  const auto fours = torch::full({2001}, 4, at::kLong);
  const auto x = torch::ones({2001, 3}, at::kBFloat16);
  const DirectGradients direct;
  for (const float passes : {1.0F, 2.0F}) {
    ops::embedding(table, fours).sum().backward();
    ops::linear(x, weight, bias).sum().backward();
    EXPECT_EQ(table.grad()[4][2].item<float>(), passes * 2001);
    EXPECT_EQ(table.grad()[0][2].item<float>(), 0.0F);
    EXPECT_EQ(weight.grad()[1][2].item<float>(), passes * 2001);
    EXPECT_EQ(bias.grad()[1].item<float>(), passes * 2001);
  }
}

// The loss's gradient is kept for backward, times the factor with which it comes.
TEST(DirectGradients, OfTheLossTakeTheIncomingFactor) {
  const auto values = normal({7, 5}, 2);
  const auto x = normal({300, 5}, 1).to(at::kFloat);
  const auto targets = testing::indices_below({300}, 7);
  const auto once = parameter(values, at::kFloat), quarter = parameter(values, at::kFloat);
  const DirectGradients direct;
  ops::linear_cross_entropy(x, once, targets).backward();
  (ops::linear_cross_entropy(x, quarter, targets) * 0.25).backward();
  EXPECT_TRUE(quarter.grad().equal(once.grad() * 0.25));
}

// An embedding that is the output matrix too, and a matrix that a LibTorch operation uses beside
// ours.
TEST(DirectGradients, OfAParameterUsedTwiceAreItsSum) {
  const auto values = normal({7, 5}, 2), x_values = normal({4, 5}, 3);
  const auto indices = testing::indices_below({9}, 7);
  const auto loss = [&](const at::Tensor& weight) {
    const auto hidden = ops::embedding(weight, indices);
    const auto x = x_values.to(weight.scalar_type());
    return ops::linear_cross_entropy(hidden, weight, indices) + weight.square().sum() +
           (ops::linear(x, weight, {}) * ops::linear(x, weight, {})).sum();
  };
  const auto wide = leaf(values, at::kDouble);
  loss(wide).backward();
  const auto weight = parameter(values, at::kFloat);
  const void* place = weight.grad().data_ptr();
  const DirectGradients direct;
  loss(weight).backward();
  testing::expect_close(weight.grad(), wide.grad(), testing::kF32.tolerance, "tied");
  EXPECT_EQ(weight.grad().data_ptr(), place);
}

struct PostHook final : torch::autograd::FunctionPostHook {
  explicit PostHook(std::function<void()> run) : run_(std::move(run)) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list&) override {
    run_();
    return outputs;
  }
  std::function<void()> run_;
};

TEST(DirectGradients, HooksOfTheAccumulationRunOnceWithAllAdded) {
  const auto weight = parameter(torch::zeros({2, 3}), at::kBFloat16);
  const auto x = torch::ones({2001, 3}, at::kBFloat16);
  std::vector<float> seen;
  const auto accumulator = torch::autograd::impl::grad_accumulator(weight);
  accumulator->add_post_hook(
      std::make_unique<PostHook>([&] { seen.push_back(weight.grad()[0][0].item<float>()); }));
  weight.register_hook([](const at::Tensor& gradient) {
    EXPECT_FALSE(gradient.defined()) << "it is added already";
  });
  const DirectGradients direct;
  const auto run = [&] {
    (ops::linear(x, weight, {}) + ops::linear(x, weight, {})).sum().backward();
  };
  run();
  EXPECT_EQ(seen, std::vector<float>({4002}));
  run();
  EXPECT_EQ(seen, std::vector<float>({4002, 8004}));
}

TEST(DirectGradients, FrozenParametersStayUntouched) {
  for (const Operation& operation : testing::operations_of_training()) {
    const Evaluation expected = testing::evaluate(operation, operation.inputs, at::kFloat);
    for (std::size_t frozen = operation.num_activations; frozen < operation.inputs.size();
         ++frozen) {
      const Tensors leaves = leaves_with_gradients(operation, at::kFloat);
      leaves[frozen].set_requires_grad(false);
      if (leaves.size() == 1) continue;  // nothing to differentiate
      const DirectGradients direct;
      testing::evaluate_at(operation, leaves, Layout::kPlain);
      for (std::size_t i = 0; i < leaves.size(); ++i) {
        const at::Tensor zeros = torch::zeros_like(expected.gradients[i]);
        EXPECT_TRUE(leaves[i].grad().equal(i == frozen ? zeros : expected.gradients[i]))
            << operation.name << ", " << i << " with " << frozen << " frozen";
      }
    }
  }
}

// A weight that was computed: its gradient goes on to what it was computed from.
TEST(DirectGradients, OfComputedWeightsTakeTheUsualWay) {
  const auto values = normal({7, 5}, 2), x = normal({4, 5}, 3).to(at::kFloat);
  const auto plain = leaf(values, at::kFloat), weight = parameter(values, at::kFloat);
  ops::linear(x, plain * 3, {}).sum().backward();
  const DirectGradients direct;
  ops::linear(x, weight * 3, {}).sum().backward();
  EXPECT_TRUE(weight.grad().equal(plain.grad()));
}

// Gradients of another dtype or layout, or none yet.
TEST(DirectGradients, WhatDoesNotFitTakesTheUsualWay) {
  const auto x = torch::ones({10, 3}, at::kBFloat16);
  const auto train = [&](const at::Tensor& gradient) {
    const auto weight = leaf(torch::zeros({2, 3}), at::kBFloat16);
    set_gradient(weight, gradient);
    const DirectGradients direct;
    ops::linear(x, weight, {}).sum().backward();
    return weight.grad();
  };
  EXPECT_TRUE(train({}).equal(torch::full({2, 3}, 10, at::kBFloat16)));
  EXPECT_TRUE(
      train(torch::ones({2, 3}, at::kBFloat16)).equal(torch::full({2, 3}, 11, at::kBFloat16)));
  EXPECT_TRUE(train(torch::ones({3, 2}).t()).equal(torch::full({2, 3}, 11.0F)));
}

TEST(DirectGradients, NothingChangesWithoutThem) {
  const auto x = torch::ones({10, 3});
  const auto weight = parameter(torch::zeros({2, 3}), at::kFloat);
  ops::linear(x, weight, {}).sum().backward();
  EXPECT_EQ(weight.grad()[1][2].item<float>(), 10.0F);
  const auto returned = torch::autograd::grad({ops::linear(x, weight, {}).sum()}, {weight});
  EXPECT_EQ(returned.at(0)[1][2].item<float>(), 10.0F);
  EXPECT_EQ(weight.grad()[1][2].item<float>(), 10.0F);
}

// Whether the gradients of this thread's backward passes are added directly just now: a bf16
// parameter's gradient tells, since 2001 does not exist in bf16.
bool adds_directly() {
  const auto weight = parameter(torch::zeros({1, 1}), at::kBFloat16);
  ops::linear(torch::ones({2001, 1}, at::kBFloat16), weight, {}).sum().backward();
  return weight.grad().item<float>() == 2001.0F;
}

TEST(DirectGradients, Nest) {
  EXPECT_FALSE(adds_directly());
  {
    const DirectGradients outer;
    {
      const DirectGradients inner;
      EXPECT_TRUE(adds_directly());
    }
    EXPECT_TRUE(adds_directly());
  }
  EXPECT_FALSE(adds_directly());
}

// A second derivative would be that of a constant.
TEST(DirectGradients, ARecordedBackwardPassIsRefused) {
  const auto weight = parameter(torch::zeros({2, 3}), at::kFloat);
  const auto loss = ops::linear(torch::ones({10, 3}), weight, {}).sum();
  for (const bool direct : {false, true}) {
    const auto run = [&] { loss.backward({}, true, /*create_graph=*/true); };
    if (direct) {
      const DirectGradients guard;
      EXPECT_THROW(run(), Error);
    } else {
      EXPECT_THROW(run(), Error);
    }
  }
  EXPECT_EQ(weight.grad().abs().max().item<float>(), 0.0F);
}

}  // namespace
}  // namespace trireme

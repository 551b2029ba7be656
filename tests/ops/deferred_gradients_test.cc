// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/deferred_gradients.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/types.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/operations_of_training.h"
#include "tests/support/post_hook.h"
#include "trireme/ops/checkpoint.h"
#include "trireme/ops/parameter_gradient.h"

namespace trireme {
namespace {

using ops::DeferredGradients;
using ops::DirectGradients;
using ::testing::ElementsAre;
using testing::leaf;
using testing::normal;
using testing::Operation;
using testing::Tensors;

// How the gradients of parameters land: as autograd accumulates them, or in f32 in place.
enum class Landing { kAccumulated, kDirect };

std::vector<Operation> operations() {
  std::vector<Operation> all = testing::operations_of_training();
  Operation lean = testing::gelu_mlp_operation(131, 70, 150);
  lean.name += ", hidden values again";
  lean.run = [](const Tensors& t) {
    return Tensors{ops::gelu_mlp(t[0], t[1], t[2], t[3], t[4], ops::HiddenValues::kComputedAgain)};
  };
  all.push_back(lean);
  lean = testing::grouped_swiglu_mlp_operation(70, 150);
  lean.name += ", hidden values again";
  lean.run = [](const Tensors& t) {
    return Tensors{ops::grouped_swiglu_mlp(t[0], t[1], t[2], t[3], testing::uneven_groups(),
                                           ops::HiddenValues::kComputedAgain)};
  };
  all.push_back(lean);
  return all;
}

// Its parameters' gradients have values of an earlier pass.
Tensors leaves_of(const Operation& operation, at::ScalarType dtype, Landing landing) {
  Tensors leaves = testing::leaves_of(operation.inputs, dtype);
  for (std::size_t i = operation.num_activations; i < leaves.size(); ++i) {
    const at::Tensor values = normal(leaves[i].sizes(), 700 + i);
    leaves[i].mutable_grad() = values.to(landing == Landing::kDirect ? at::kFloat : dtype);
  }
  return leaves;
}

Tensors copies_of_gradients(const Tensors& leaves) {
  Tensors copies;
  for (const at::Tensor& each : leaves) {
    copies.push_back(each.grad().defined() ? each.grad().clone() : torch::zeros({1}));
  }
  return copies;
}

void pass(const Operation& operation, const Tensors& leaves, Landing landing) {
  std::optional<DirectGradients> direct;
  if (landing == Landing::kDirect) direct.emplace();
  testing::evaluate_at(operation, leaves, testing::Layout::kPlain);
}

void run(DeferredGradients& later, Landing landing) {
  std::optional<DirectGradients> direct;
  if (landing == Landing::kDirect) direct.emplace();
  later.run();
}

bool is_loss(const Operation& operation) { return operation.name.rfind("loss", 0) == 0; }

void expect_deferred_equals_plain(const Operation& operation, at::ScalarType dtype,
                                  Landing landing) {
  SCOPED_TRACE(operation.name + " in " + c10::toString(dtype) +
               (landing == Landing::kDirect ? ", direct" : ""));
  const Tensors plain = leaves_of(operation, dtype, landing),
                deferred = leaves_of(operation, dtype, landing);
  const Tensors before = copies_of_gradients(deferred);
  pass(operation, plain, landing);
  DeferredGradients later;
  {
    const DeferredGradients::Recording recording(later);
    pass(operation, deferred, landing);
  }
  const bool records = dtype != at::kDouble && !is_loss(operation);
  const std::size_t parameters = deferred.size() - operation.num_activations;
  EXPECT_EQ(later.parameters().size(), records ? parameters : 0);
  EXPECT_EQ(later.bytes() > 0, records && parameters > 0);
  for (std::size_t i = 0; i < deferred.size(); ++i) {
    const bool waits = records && i >= operation.num_activations;
    EXPECT_TRUE(deferred[i].grad().equal(waits ? before[i] : plain[i].grad())) << i;
  }
  run(later, landing);
  EXPECT_TRUE(testing::same_bits(copies_of_gradients(deferred), copies_of_gradients(plain)));
  EXPECT_EQ(later.bytes(), 0);
  EXPECT_TRUE(later.parameters().empty());
}

TEST(DeferredGradients, HaveTheBitsOfThePlainPassInEveryOperation) {
  for (const Operation& operation : operations()) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      for (const Landing landing : {Landing::kAccumulated, Landing::kDirect}) {
        expect_deferred_equals_plain(operation, dtype, landing);
      }
    }
  }
}

// Passes in flight do not meet, whatever the order in which they are run.
TEST(DeferredGradients, OfSeveralPassesAreAddedAsTheyAreRun) {
  const auto weight = leaf(normal({7, 5}, 1), at::kFloat), other = leaf(weight, at::kFloat);
  std::vector<at::Tensor> xs;
  std::vector<std::unique_ptr<DeferredGradients>> passes;
  for (std::int64_t i = 0; i < 3; ++i) {
    xs.push_back(normal({3 + i, 5}, 10 + static_cast<std::uint64_t>(i)).to(at::kFloat));
    passes.push_back(std::make_unique<DeferredGradients>());
    const DeferredGradients::Recording recording(*passes.back());
    ops::linear(xs.back(), weight, {}).square().sum().backward();
  }
  EXPECT_FALSE(weight.grad().defined());
  for (const std::size_t i : {1U, 0U, 2U}) {
    ops::linear(xs[i], other, {}).square().sum().backward();
    passes[i]->run();
    EXPECT_TRUE(weight.grad().equal(other.grad())) << i;
  }
}

// Recorded inside of a segment that is computed again, by a backward pass in the backward pass.
TEST(DeferredGradients, OfCheckpointedSegmentsAreRecorded) {
  const auto values = normal({5, 5}, 1), x_values = normal({6, 5}, 2);
  const auto gradient = [&](bool deferred) {
    const auto weight = leaf(values, at::kFloat), x = leaf(x_values, at::kFloat);
    const auto y = ops::checkpoint(
        [&](const Tensors& in) { return Tensors{ops::linear(in[0], weight, {}).tanh()}; }, {x});
    DeferredGradients later;
    if (deferred) {
      const DeferredGradients::Recording recording(later);
      y[0].sum().backward();
      EXPECT_FALSE(weight.grad().defined());
    } else {
      y[0].sum().backward();
    }
    later.run();
    return std::pair(weight.grad(), x.grad());
  };
  const auto plain = gradient(false), late = gradient(true);
  EXPECT_TRUE(late.first.equal(plain.first));
  EXPECT_TRUE(late.second.equal(plain.second));
}

// Both of a tied matrix's gradients, the second of which was not recorded, and one used twice.
TEST(DeferredGradients, OfAParameterUsedTwiceAreItsSum) {
  const auto indices = testing::indices_below({9}, 7);
  const auto gradient = [&](bool deferred) {
    const auto weight = leaf(normal({7, 5}, 2), at::kFloat);
    const auto hidden = ops::embedding(weight, indices);
    const auto loss =
        ops::linear_cross_entropy(hidden, weight, indices) + ops::linear(hidden, weight, {}).sum();
    DeferredGradients later;
    if (deferred) {
      const DeferredGradients::Recording recording(later);
      loss.backward();
      EXPECT_THAT(
          later.parameters(),
          ElementsAre(::testing::Truly([&](const at::Tensor& p) { return p.is_same(weight); })));
    } else {
      loss.backward();
    }
    later.run();
    return weight.grad();
  };
  testing::expect_close(gradient(true), gradient(false), testing::kF32.tolerance, "tied");
}

// The rules of DirectGradients hold for run() as for a pass, and it is their order.
TEST(DeferredGradients, TakeTheRulesOfTheRun) {
  const auto bias = leaf(normal({7}, 1), at::kBFloat16),
             weight = leaf(normal({7, 5}, 2), at::kBFloat16);
  DeferredGradients later;
  {
    const DeferredGradients::Recording recording(later);
    ops::linear(normal({9, 5}, 3).to(at::kBFloat16), weight, bias).sum().backward();
  }
  std::vector<std::string> homes, additions;
  const auto name = [&](const at::Tensor& p) { return p.is_same(bias) ? "bias" : "weight"; };
  const DirectGradients direct(
      {.home =
           [&](const at::Tensor& p) {
             homes.emplace_back(name(p));
             at::Tensor(p).mutable_grad() = torch::zeros(p.sizes());
           },
       .before_addition = [&](const at::Tensor& p) { additions.emplace_back(name(p)); }});
  later.run();
  EXPECT_THAT(homes, ElementsAre("weight", "bias"));
  EXPECT_THAT(additions, ElementsAre("weight", "bias"));
  EXPECT_EQ(weight.grad().scalar_type(), at::kFloat);
  EXPECT_EQ(bias.grad()[6].item<float>(), 9.0F);
}

TEST(DeferredGradients, HooksOfTheAccumulationRunOnceWithAllAdded) {
  const auto weight = leaf(torch::zeros({2, 3}), at::kFloat);
  const auto x = torch::ones({11, 3});
  std::vector<float> seen;
  DeferredGradients later;
  {
    const DeferredGradients::Recording recording(later);
    (ops::linear(x, weight, {}) + ops::linear(x, weight, {})).sum().backward();
  }
  const auto accumulator = torch::autograd::impl::grad_accumulator(weight);
  accumulator->add_post_hook(std::make_unique<testing::PostHook>(
      [&] { seen.push_back(weight.grad()[1][2].item<float>()); }));
  later.run();
  EXPECT_EQ(seen, std::vector<float>({22}));
}

TEST(DeferredGradients, AnErrorLeavesNothingRecorded) {
  const auto weight = leaf(normal({2, 3}, 1), at::kFloat);
  DeferredGradients later;
  {
    const DeferredGradients::Recording recording(later);
    ops::linear(torch::ones({11, 3}), weight, {}).sum().backward();
  }
  {
    const DirectGradients direct(
        {.home = [](const at::Tensor&) { throw std::runtime_error("no home"); }});
    EXPECT_THROW(later.run(), std::runtime_error);
  }
  EXPECT_EQ(later.bytes(), 0);
  later.run();
  EXPECT_FALSE(weight.grad().defined());
}

// One piece of memory counts once; frozen parameters and weights that were computed keep nothing.
TEST(DeferredGradients, CountWhatTheyKeep) {
  const auto weight = leaf(normal({7, 5}, 1), at::kFloat), bias = leaf(normal({7}, 2), at::kFloat),
             frozen = normal({7, 5}, 3).to(at::kFloat), x = leaf(normal({4, 5}, 4), at::kFloat);
  DeferredGradients later;
  const auto bytes_of = [&](const at::Tensor& y) {
    later.clear();
    const DeferredGradients::Recording recording(later);
    y.square().sum().backward();
    return later.bytes();
  };
  EXPECT_EQ(bytes_of(ops::linear(x, weight, bias)), 4 * (4 * 5 + 4 * 7));
  EXPECT_EQ(bytes_of(ops::linear(x, frozen, bias)), 4 * 4 * 7);
  EXPECT_EQ(bytes_of(ops::linear(x, weight * 2, {})), 0);
  EXPECT_EQ(bytes_of(ops::linear(x, frozen, {})), 0);
  EXPECT_TRUE(later.parameters().empty());
}

TEST(DeferredGradients, AreComputedInThePassWithoutARecording) {
  DeferredGradients outer, inner;
  const auto weight = leaf(normal({2, 3}, 1), at::kFloat);
  const auto train = [&] { ops::linear(torch::ones({11, 3}), weight, {}).sum().backward(); };
  {
    const DeferredGradients::Recording recording(outer);
    {
      const DeferredGradients::Recording innermost(inner);
      train();
    }
    EXPECT_EQ(inner.parameters().size(), 1);
    EXPECT_EQ(outer.parameters().size(), 0);
    train();
    EXPECT_EQ(outer.parameters().size(), 1);
  }
  EXPECT_FALSE(weight.grad().defined());
  train();
  EXPECT_EQ(weight.grad()[1][2].item<float>(), 11.0F);
}

}  // namespace
}  // namespace trireme

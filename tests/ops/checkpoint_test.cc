// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Tensors = std::vector<at::Tensor>;

at::Tensor wave(at::IntArrayRef shape, double frequency) {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) count *= dim;
  return (torch::arange(count, at::kDouble) * frequency).sin().to(at::kFloat).view(shape);
}

// Two layers with a residual and dropout, some parameters, and a count of its runs.
struct Block {
  at::Tensor up = wave({8, 20}, 0.7).requires_grad_(true);
  at::Tensor down = wave({20, 8}, 1.3).requires_grad_(true);
  int runs = 0;

  at::Tensor operator()(const at::Tensor& x) {
    ++runs;
    return x + torch::matmul(torch::dropout(torch::tanh(torch::matmul(x, up)), 0.3, true), down);
  }
  Tensors gradients() const { return {up.grad(), down.grad()}; }
};

// One forward and backward pass, and whatever it leaves.
struct Outcome {
  at::Tensor output, input_gradient;
  Tensors parameter_gradients;
  at::Tensor next_random;
};

Outcome run(Block& block, const std::function<at::Tensor(const at::Tensor&)>& model) {
  torch::manual_seed(5);
  const at::Tensor x = wave({6, 8}, 0.37).requires_grad_(true);
  Outcome outcome;
  outcome.output = model(x);
  (outcome.output * wave({6, 8}, 0.11)).sum().backward();
  outcome.input_gradient = x.grad();
  outcome.parameter_gradients = block.gradients();
  outcome.next_random = torch::rand({3});
  return outcome;
}

void expect_identical(const Outcome& a, const Outcome& b) {
  EXPECT_TRUE(a.output.equal(b.output));
  EXPECT_TRUE(a.input_gradient.equal(b.input_gradient));
  EXPECT_TRUE(a.next_random.equal(b.next_random)) << "the stream goes on as without checkpoints";
  ASSERT_EQ(a.parameter_gradients.size(), b.parameter_gradients.size());
  for (std::size_t i = 0; i < a.parameter_gradients.size(); ++i) {
    EXPECT_TRUE(a.parameter_gradients[i].equal(b.parameter_gradients[i])) << i;
  }
}

at::Tensor checkpointed(Block& block, const at::Tensor& x) {
  return ops::checkpoint([&block](const Tensors& in) { return Tensors{block(in[0])}; }, {x})[0];
}

TEST(Checkpoint, BitsAreThoseWithoutIt) {
  Block plain, kept;
  const Outcome expected = run(plain, [&](const at::Tensor& x) { return plain(plain(x)); });
  const Outcome outcome =
      run(kept, [&](const at::Tensor& x) { return checkpointed(kept, checkpointed(kept, x)); });
  expect_identical(outcome, expected);
  EXPECT_EQ(plain.runs, 2);
  EXPECT_EQ(kept.runs, 4);
}

TEST(Checkpoint, OneInsideAnother) {
  Block plain, kept;
  const Outcome expected = run(plain, [&](const at::Tensor& x) { return plain(x.cos()).cos(); });
  const Outcome outcome = run(kept, [&](const at::Tensor& x) {
    return ops::checkpoint(
        [&kept](const Tensors& in) { return Tensors{checkpointed(kept, in[0].cos()).cos()}; },
        {x})[0];
  });
  expect_identical(outcome, expected);
  EXPECT_EQ(kept.runs, 3) << "forward, again for the outer one, again for the inner one";
}

TEST(Checkpoint, OnlyParametersNeedGradients) {
  Block plain, kept;
  const at::Tensor x = wave({6, 8}, 0.37);
  torch::manual_seed(3);
  plain(x).sum().backward();
  torch::manual_seed(3);
  checkpointed(kept, x).sum().backward();
  EXPECT_TRUE(kept.up.grad().equal(plain.up.grad()));
  EXPECT_TRUE(kept.down.grad().equal(plain.down.grad()));
}

TEST(Checkpoint, SeveralInputsAndOutputsOfDifferentKinds) {
  const at::Tensor table = wave({5, 4}, 0.9).requires_grad_(true);
  const at::Tensor scale = wave({3, 4}, 0.3).requires_grad_(true);
  const at::Tensor constant = wave({3, 4}, 0.2);
  const at::Tensor tokens = torch::tensor({4, 1, 4});
  const auto segment = [](const Tensors& in) {
    const at::Tensor rows = in[0].index_select(0, in[1]);
    return Tensors{rows * in[2], in[1] + 1, rows + in[3], rows.sin()};
  };
  const auto gradients = [&](const Tensors& out) {
    table.mutable_grad().reset();
    scale.mutable_grad().reset();
    (out[0].sum() + 2 * out[2].square().sum()).backward();  // out[3] is not used
    return Tensors{table.grad(), scale.grad()};
  };
  const Tensors inputs = {table, tokens, scale, constant};
  const Tensors expected = gradients(segment(inputs));
  const Tensors outputs = ops::checkpoint(segment, inputs);
  EXPECT_FALSE(outputs[1].requires_grad());
  EXPECT_TRUE(outputs[1].equal(tokens + 1));
  const Tensors found = gradients(outputs);
  EXPECT_TRUE(found[0].equal(expected[0]));
  EXPECT_TRUE(found[1].equal(expected[1]));
  EXPECT_FALSE(constant.grad().defined());
}

TEST(Checkpoint, WithoutGradientsItIsJustTheSegment) {
  Block block;
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(checkpointed(block, wave({2, 8}, 0.4)).requires_grad());
  EXPECT_EQ(block.runs, 1);
}

TEST(Checkpoint, KeepsOnlyTheInputs) {
  install_caching_allocator();
  const at::Tensor x = wave({1000, 50}, 0.01).requires_grad_(true);
  const auto deep = [](const Tensors& in) {
    at::Tensor h = in[0];
    for (int i = 0; i < 10; ++i) h = h.sin();
    return Tensors{h};
  };
  const auto held_bytes = [&](const auto& model) {
    const std::int64_t before = process_memory().report().current.total();
    const at::Tensor output = model();
    return process_memory().report().current.total() - before;
  };
  const std::int64_t tensor_bytes = 4 * 1000 * 50;
  EXPECT_EQ(held_bytes([&] { return deep({x})[0]; }), 10 * tensor_bytes);
  EXPECT_LT(held_bytes([&] { return ops::checkpoint(deep, {x})[0]; }), tensor_bytes + 10000)
      << "the output, and the state of the random numbers";
}

TEST(Checkpoint, ExceptionsPassThroughBothTimes) {
  int runs = 0, fail_at = 1;
  const auto segment = [&](const Tensors& in) {
    if (++runs == fail_at) throw std::runtime_error("run " + std::to_string(runs));
    return Tensors{in[0].sin()};
  };
  const at::Tensor x = wave({3}, 0.5).requires_grad_(true);
  EXPECT_THAT([&] { ops::checkpoint(segment, {x}); },
              ThrowsMessage<std::runtime_error>(HasSubstr("run 1")));
  fail_at = 3;
  const at::Tensor state = torch::rand({1});
  const at::Tensor loss = ops::checkpoint(segment, {x})[0].sum();
  std::string message;
  try {
    loss.backward();
  } catch (const std::exception& error) {
    message = error.what();
  }
  EXPECT_THAT(message, HasSubstr("run 3"));
  ops::checkpoint(segment, {x})[0].sum().backward();
  EXPECT_TRUE(x.grad().equal(x.detach().cos())) << "the engine works on";
}

TEST(Checkpoint, RefusesWhatItCannotDo) {
  Block block;
  const at::Tensor x = wave({4, 8}, 0.2).requires_grad_(true);
  const at::Tensor loss = checkpointed(block, x).sum();
  loss.backward({}, /*retain_graph=*/true);
  const at::Tensor gradient = x.grad().clone();
  EXPECT_THAT([&] { loss.backward({}, true); }, ThrowsMessage<Error>(HasSubstr("a second time")));
  EXPECT_TRUE(x.grad().equal(gradient));
  EXPECT_THAT([&] { checkpointed(block, x).sum().backward({}, {}, /*create_graph=*/true); },
              ThrowsMessage<Error>(HasSubstr("create_graph")));
  EXPECT_THAT([&] { torch::autograd::grad({checkpointed(block, x).sum()}, {x}); },
              ThrowsMessage<Error>(HasSubstr("use backward()")));
  EXPECT_THAT([&] { ops::checkpoint([](const Tensors& in) { return in; }, {at::Tensor()}); },
              ThrowsMessage<ShapeError>(HasSubstr("undefined")));
}

TEST(Checkpoint, RefusesASegmentThatChangesItsMind) {
  int runs = 0;
  const at::Tensor x = wave({4, 3}, 0.2).requires_grad_(true);
  const at::Tensor y = ops::checkpoint(
      [&](const Tensors& in) { return Tensors{in[0].narrow(0, 0, 2 + runs++)}; }, {x})[0];
  EXPECT_THAT(
      [&] { y.sum().backward(); },
      ThrowsMessage<Error>(::testing::AllOf(HasSubstr("Float [2, 3]"), HasSubstr("Float [3, 3]"))));
}

}  // namespace
}  // namespace trireme

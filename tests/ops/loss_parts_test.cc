// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The loss over a vocabulary that is cut between threads.

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <barrier>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"
#include "trireme/ops/loss.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using testing::leaf;
using testing::normal;

// What the parts of one loss tell one another.
class Exchange {
 public:
  explicit Exchange(int parts) : barrier_(parts), own_(static_cast<std::size_t>(parts)) {}

  ops::VocabularyPart part(std::size_t number, std::int64_t first, std::int64_t size) {
    return {.first = first, .size = size, .gather = [this, number](const at::Tensor& own) {
              EXPECT_EQ(own.scalar_type(), at::kDouble);
              EXPECT_EQ(own.size(0), 2);
              own_[number] = own;
              barrier_.arrive_and_wait();
              const at::Tensor all = torch::stack(own_);
              barrier_.arrive_and_wait();
              return all;
            }};
  }

 private:
  std::barrier<> barrier_;
  std::vector<at::Tensor> own_;
};

struct Case {
  std::int64_t rows, width;
  std::vector<std::int64_t> parts;  // rows of the weight
  bool ignored;                     // some targets count for nothing
};

// Blocks of 256 rows, parts of one row and none alike.
const std::vector<Case> kCases = {
    {5, 3, {4, 3}, false}, {257, 20, {13, 1, 23}, true}, {530, 33, {700, 325, 101, 9}, true}};

struct Result {
  at::Tensor loss, x_grad, weight_grad;
};

struct Inputs {
  at::Tensor x, weight, targets;
};

Inputs inputs_of(const Case& a_case, at::ScalarType dtype) {
  std::int64_t vocabulary = 0;
  for (const std::int64_t part : a_case.parts) vocabulary += part;
  Inputs in{normal({a_case.rows, a_case.width}, 1).to(dtype),
            normal({vocabulary, a_case.width}, 2).to(dtype),
            testing::indices_below({a_case.rows}, vocabulary)};
  if (a_case.ignored) {
    in.targets.slice(0, 3, a_case.rows, 7).fill_(ops::kIgnoredTarget);
  }
  return in;
}

Result run_whole(const Inputs& in) {
  const auto dtype = in.x.scalar_type();
  const at::Tensor x = leaf(in.x, dtype), weight = leaf(in.weight, dtype);
  const at::Tensor loss = ops::linear_cross_entropy(x, weight, in.targets);
  (loss * 3).backward();
  return {loss.detach(), x.grad(), weight.grad()};
}

// A thread for each part; the sum of x's gradients, the parts of the weight's side by side.
Result run_parts(const Inputs& in, const std::vector<std::int64_t>& sizes) {
  const auto dtype = in.x.scalar_type();
  Exchange exchange(static_cast<int>(sizes.size()));
  std::vector<Result> results(sizes.size());
  std::vector<std::thread> threads;
  std::int64_t first = 0;
  for (std::size_t i = 0; i < sizes.size(); first += sizes[i], ++i) {
    threads.emplace_back([&, i, first] {
      const at::Tensor x = leaf(in.x, dtype);
      const at::Tensor weight = leaf(in.weight.narrow(0, first, sizes[i]), dtype);
      const at::Tensor loss = ops::linear_cross_entropy(x, weight, in.targets,
                                                        exchange.part(i, first, in.weight.size(0)));
      (loss * 3).backward();
      results[i] = {loss.detach(), x.grad(), weight.grad()};
    });
  }
  for (std::thread& thread : threads) thread.join();
  Result sum{results[0].loss, torch::zeros(in.x.sizes(), at::kDouble), {}};
  std::vector<at::Tensor> weight_grads;
  for (const Result& result : results) {
    EXPECT_TRUE(result.loss.equal(sum.loss) || result.loss.isnan().item<bool>())
        << "all have the same bits";
    sum.x_grad += result.x_grad.to(at::kDouble);
    weight_grads.push_back(result.weight_grad);
  }
  sum.weight_grad = torch::cat(weight_grads);
  return sum;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor expected = b.to(at::kDouble);
  return ((a.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
}

TEST(LossParts, AreTheWholeLossInF64) {
  for (const Case& a_case : kCases) {
    const Inputs in = inputs_of(a_case, at::kDouble);
    const Result whole = run_whole(in), parts = run_parts(in, a_case.parts);
    EXPECT_NEAR(parts.loss.item<double>(), whole.loss.item<double>(), 1e-13);
    EXPECT_LT(largest_difference(parts.x_grad, whole.x_grad), 1e-12);
    EXPECT_LT(largest_difference(parts.weight_grad, whole.weight_grad), 1e-12);
  }
}

// f32: an exponential and a product err by a few units in the last place. bf16: the gradient of a
// logit is rounded to 8 bits, in each part as in the whole.
TEST(LossParts, AreTheWholeLossByKernels) {
  for (const auto& [dtype, bound] : {std::pair{at::kFloat, 1e-5}, {at::kBFloat16, 1e-2}}) {
    for (const Case& a_case : kCases) {
      const Inputs in = inputs_of(a_case, dtype);
      const Result whole = run_whole(in), parts = run_parts(in, a_case.parts);
      EXPECT_EQ(parts.loss.scalar_type(), at::kFloat);
      EXPECT_EQ(parts.weight_grad.scalar_type(), dtype);
      EXPECT_NEAR(parts.loss.item<double>(), whole.loss.item<double>(),
                  1e-6 * whole.loss.item<double>());
      EXPECT_LT(largest_difference(parts.x_grad, whole.x_grad), bound);
      EXPECT_LT(largest_difference(parts.weight_grad, whole.weight_grad), bound);
    }
  }
}

// Logits of a thousand in one part and of minus a thousand in the other.
TEST(LossParts, LargeLogitsDoNotOverflow) {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    Inputs in = inputs_of({20, 9, {14, 23}, false}, dtype);
    in.x = in.x * 300;
    const Result whole = run_whole(in), parts = run_parts(in, {14, 23});
    const double bound = dtype == at::kDouble ? 1e-12 : 1e-3;
    EXPECT_NEAR(parts.loss.item<double>(), whole.loss.item<double>(),
                bound * whole.loss.item<double>());
    EXPECT_LT(largest_difference(parts.x_grad, whole.x_grad), bound);
  }
}

TEST(LossParts, AreZeroWithoutTargets) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    Inputs in = inputs_of({300, 5, {4, 3}, false}, dtype);
    in.targets.fill_(ops::kIgnoredTarget);
    const Result parts = run_parts(in, {4, 3});
    EXPECT_EQ(parts.loss.item<double>(), 0.0);
    EXPECT_EQ(parts.x_grad.abs().max().item<double>(), 0.0);
    EXPECT_EQ(parts.weight_grad.abs().max().item<double>(), 0.0);
  }
}

TEST(LossParts, NaNIsNotHidden) {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    Inputs in = inputs_of({300, 5, {4, 33}, false}, dtype);
    in.x[280][3] = std::numeric_limits<double>::quiet_NaN();
    EXPECT_TRUE(std::isnan(run_parts(in, {4, 33}).loss.item<double>()));
  }
}

TEST(LossParts, RefuseATargetThatNoPartHas) {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    const Inputs in = inputs_of({3, 5, {4, 3}, false}, dtype);
    ops::VocabularyPart part{
        .first = 4, .size = 7, .gather = [](const at::Tensor& own) { return own.unsqueeze(0); }};
    const auto loss = [&](std::int64_t target) {
      ops::linear_cross_entropy(in.x, in.weight.narrow(0, 4, 3),
                                torch::tensor({std::int64_t{0}, target, std::int64_t{0}}), part);
    };
    EXPECT_NO_THROW(loss(6));
    EXPECT_THROW(loss(7), c10::IndexError);
    EXPECT_THROW(loss(-1), c10::IndexError);
    part.first = 5;
    EXPECT_THAT(testing::failure_of([&] { loss(0); }),
                HasSubstr("ShapeError: rows [5, 8) are no part of a vocabulary of 7"));
  }
}

}  // namespace
}  // namespace trireme

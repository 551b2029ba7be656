// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/gradient_tree.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "trireme/base/error.h"
#include "trireme/parallel/flat_parameters.h"

namespace trireme {
namespace {

using testing::formula_tokens;

// The sum of leaves [begin, end), a power of two of them, as a balanced tree.
at::Tensor tree_sum(const std::vector<at::Tensor>& leaves, std::size_t begin, std::size_t end) {
  if (end - begin == 1) return leaves[begin];
  const std::size_t middle = (begin + end) / 2;
  return tree_sum(leaves, begin, middle) + tree_sum(leaves, middle, end);
}

struct SmallModel {
  SmallModel() { nn::initialize(*model, 3); }
  at::Tensor loss(std::int64_t micro_batch) {
    return model->loss(formula_tokens(2, 11, 37, micro_batch),
                       formula_tokens(2, 11, 37, micro_batch + 1));
  }
  nn::Transformer model{testing::small_model_config("gpt2")};
  FlatParameters flat{*model, at::kFloat};
};

std::vector<at::Tensor> gradients_one_by_one(std::int64_t micro_batches) {
  std::vector<at::Tensor> gradients;
  SmallModel small;
  for (std::int64_t m = 0; m < micro_batches; ++m) {
    small.flat.zero_grad();
    small.flat.backward(small.loss(m));
    gradients.push_back(small.flat.grad().clone());
  }
  return gradients;
}

// As a training step does it.
TEST(GradientTree, SumsMicroBatchesInABalancedTreeAndReusesItsMemory) {
  constexpr std::int64_t kMicroBatches = 8, kSteps = 3;
  constexpr std::size_t kBuffers = 4 + 1;  // log2(8) + 1 sums, and the one that backward fills
  const at::Tensor expected = tree_sum(gradients_one_by_one(kMicroBatches), 0, kMicroBatches);
  SmallModel small;
  GradientTree tree(small.flat.size());
  std::set<const void*> places;
  for (std::int64_t step = 0; step < kSteps; ++step) {
    for (std::int64_t m = 0; m < kMicroBatches; ++m) {
      places.insert(small.flat.grad().data_ptr());
      small.flat.backward(small.loss(m));
      const at::Tensor next = tree.buffer();
      EXPECT_TRUE(next.equal(torch::zeros_like(next))) << "step " << step << ", " << m;
      tree.push(small.flat.exchange_grad(next));
    }
    at::Tensor sum = tree.take();
    EXPECT_TRUE(sum.equal(expected)) << "step " << step;
    sum.zero_();
    tree.give_back(std::move(sum));
    EXPECT_LE(places.size(), kBuffers) << "step " << step;
  }
  small.flat.check_views();
}

// Three decimal digits of a float's seven are lost at each sum of these: any other order shows.
TEST(GradientTree, AnyNumberOfLeavesIsTheTreeThatSplitsAtAPowerOfTwo) {
  const auto leaf = [](int i) {
    return torch::arange(5.0).add(1.0 + i).reciprocal().mul(std::pow(-7.3, i)).to(at::kFloat);
  };
  const auto plus = [](const at::Tensor& a, const at::Tensor& b) { return a + b; };
  const auto l = [&](int i) { return leaf(i); };
  const std::vector<at::Tensor> expected{
      l(0),
      l(0) + l(1),
      (l(0) + l(1)) + l(2),
      (l(0) + l(1)) + (l(2) + l(3)),
      plus((l(0) + l(1)) + (l(2) + l(3)), l(4)),
      plus((l(0) + l(1)) + (l(2) + l(3)), l(4) + l(5)),
      plus((l(0) + l(1)) + (l(2) + l(3)), plus(l(4) + l(5), l(6)))};
  GradientTree tree(5);
  for (int leaves = 1; leaves <= 7; ++leaves) {
    for (const bool in_parts : {false, true}) {
      for (int i = 0; i < leaves - 1; ++i) {
        at::Tensor one = tree.buffer().copy_(leaf(i));
        if (in_parts) {
          tree.merge(one, 2, 5);
          tree.merge(one, 0, 2);
          tree.push_merged(std::move(one));
        } else {
          tree.push(std::move(one));
        }
      }
      at::Tensor last = tree.buffer().copy_(leaf(leaves - 1));
      if (in_parts) {
        const at::Tensor back = tree.fold(last, 3, 5);
        const at::Tensor front = tree.fold(last, 0, 3);
        last = tree.take(last);
        EXPECT_EQ(front.data_ptr(), last.data_ptr());
        EXPECT_EQ(back.data_ptr(), last.narrow(0, 3, 2).data_ptr());
      } else {
        tree.push(last);
        last = tree.take();
      }
      EXPECT_TRUE(last.equal(expected[static_cast<std::size_t>(leaves) - 1])) << leaves;
      tree.give_back(last.zero_());
      const at::Tensor next = tree.buffer();
      EXPECT_TRUE(next.equal(torch::zeros({5}))) << leaves;
      tree.give_back(next);
    }
  }
}

TEST(GradientTree, RefusesWhatItCannotSum) {
  GradientTree tree(3);
  EXPECT_THROW(tree.push(torch::zeros({4})), InternalError);
  EXPECT_THROW(tree.take(), InternalError) << "no leaves";
  GradientTree narrow(3);
  narrow.push(torch::zeros({3}, at::kBFloat16));
  EXPECT_THROW(narrow.push(torch::zeros({3}, at::kBFloat16)), ShapeError);
}

}  // namespace
}  // namespace trireme

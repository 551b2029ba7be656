// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/embedding.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"
#include "trireme/ops/parameter_gradient.h"

namespace trireme {
namespace {

using testing::embedding_operation;
using testing::Layout;
using testing::leaf;
using testing::normal;

std::vector<testing::Operation> embeddings() {
  return {embedding_operation(1, 1, 1, 1, true), embedding_operation(3, 101, 13, 45, true),
          embedding_operation(3, 101, 13, 45, false), embedding_operation(2, 7, 300, 517, true)};
}

TEST(EmbeddingOp, LooksUpRowsAndAddsPositions) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto table = normal({7, 5}, 1).to(dtype), positions = normal({3, 5}, 2).to(dtype);
    const auto indices = torch::tensor({6, 0, 6, 2, 3, 3}, at::kLong).view({2, 3});
    const auto plain = ops::embedding(table, indices),
               moved = ops::embedding(table, indices, positions);
    EXPECT_EQ(plain.sizes(), at::IntArrayRef({2, 3, 5}));
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t t = 0; t < 3; ++t) {
        const auto row = table[indices[b][t].item<std::int64_t>()];
        EXPECT_TRUE(plain[b][t].equal(row)) << dtype;
        EXPECT_TRUE(moved[b][t].equal(row + positions[t])) << dtype;
      }
    }
    const auto columns = indices.t().contiguous().t();  // indices that do not lie in order
    EXPECT_TRUE(ops::embedding(table, columns, positions).equal(moved)) << dtype;
    EXPECT_TRUE(ops::embedding(table, indices[0]).equal(plain[0])) << dtype;
  }
}

TEST(EmbeddingOp, GradientsAreThoseOfFiniteDifferences) {
  testing::expect_gradients_of_differences(embeddings());
}

TEST(EmbeddingOp, KernelsFollowF64) {
  testing::expect_follow_f64(embeddings(),
                             {Layout::kPlain, Layout::kStrided, Layout::kExpandedGradients});
}

// The gradients of a row are added in the order of the indices, in f32, and rounded once.
TEST(EmbeddingOp, GradientsAreSumsInOrder) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto table = leaf(torch::zeros({5, 19}), dtype);
    const auto indices = testing::indices_below({700}, 5);
    const auto gradient = normal({700, 19}, 1).to(dtype), wide = gradient.to(at::kFloat);
    ops::embedding(table, indices).backward(gradient);
    auto expected = torch::zeros({5, 19});
    for (std::int64_t i = 0; i < 700; ++i) expected[indices[i].item<std::int64_t>()] += wide[i];
    EXPECT_TRUE(table.grad().equal(expected.to(dtype))) << dtype;
  }
  const auto table = leaf(torch::zeros({5, 3}), at::kBFloat16);
  const auto fours = torch::full({2000}, 4, at::kLong);
  ops::embedding(table, fours).backward(torch::ones({2000, 3}, at::kBFloat16));
  EXPECT_EQ(table.grad()[4][2].item<float>(), 2000.0F);  // bf16 sums end at 256
  EXPECT_EQ(table.grad()[0][0].item<float>(), 0.0F);
}

TEST(EmbeddingOp, ItsUsesAreReadFromTheGraph) {
  const auto table = normal({7, 5}, 1).to(at::kFloat).requires_grad_(true);
  const auto other = normal({7, 5}, 2).to(at::kFloat).requires_grad_(true);
  const auto first = torch::tensor({6, 0, 6}, at::kLong), second = torch::tensor({2}, at::kLong);
  const auto x = ops::embedding(table, first).sum(0) + ops::embedding(table, second)[0];
  const auto loss = (table.matmul(x) * other.matmul(x)).sum() + table.sum();
  const auto uses = ops::uses_in_graph(loss, table);
  ASSERT_EQ(uses.lookups.size(), 2U);
  const bool in_order = uses.lookups[0].equal(first);
  EXPECT_TRUE(uses.lookups[in_order ? 1 : 0].equal(second));
  EXPECT_TRUE(uses.lookups[in_order ? 0 : 1].equal(first));
  EXPECT_EQ(uses.others, 2);
  const auto none = ops::uses_in_graph(ops::embedding(other, first).sum(), table);
  EXPECT_TRUE(none.lookups.empty());
  EXPECT_EQ(none.others, 0);
  EXPECT_EQ(ops::uses_in_graph(table.detach().sum(), table).others, 0);
  // As positions it is used, and not looked up.
  const auto positions = normal({3, 5}, 3).to(at::kFloat).requires_grad_(true);
  const auto moved = ops::embedding(table, first, positions).sum();
  EXPECT_EQ(ops::uses_in_graph(moved, positions).others, 1);
  EXPECT_TRUE(ops::uses_in_graph(moved, positions).lookups.empty());
}

TEST(EmbeddingOp, AddsRowsWhereTheyAreAtHome) {
  const auto table = normal({7, 5}, 1).to(at::kFloat).requires_grad_(true);
  table.mutable_grad() = torch::zeros_like(table);
  const auto indices = torch::tensor({6, 0, 6, 2}, at::kLong);
  const auto factors = normal({4, 5}, 2).to(at::kFloat);
  ops::DirectGradients::RowHome home{torch::full({3, 5}, 0.5, at::kFloat),
                                     torch::tensor({1, -1, 2, -1, -1, -1, 0}, at::kLong)};
  const auto pass = [&] {
    const ops::DirectGradients direct({.row_home = [&](const at::Tensor& parameter) {
      return parameter.is_same(table) ? &home : nullptr;
    }});
    (ops::embedding(table, indices) * factors).sum().backward();
  };
  pass();
  EXPECT_TRUE(home.sums[0].equal(0.5F + (factors[0] + factors[2])));
  EXPECT_TRUE(home.sums[1].equal(0.5F + factors[1]));
  EXPECT_TRUE(home.sums[2].equal(0.5F + factors[3]));
  EXPECT_EQ(table.grad().abs().sum().item<float>(), 0);
  home.place[2] = -1;
  EXPECT_THROW(pass(), Error);
}

TEST(EmbeddingOp, ARowThatIsElsewhereIsZerosAndGetsNoGradient) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto table = leaf(normal({7, 5}, 1), dtype);
    const auto indices =
        torch::tensor({std::int64_t{6}, ops::kNoRow, std::int64_t{2}, ops::kNoRow}).view({2, 2});
    const auto factors = normal({2, 2, 5}, 2).to(dtype);
    const auto positions = leaf(normal({2, 5}, 3), dtype);
    const auto rows = ops::embedding(table, indices);
    EXPECT_TRUE(rows[0][0].equal(table[6])) << dtype;
    EXPECT_EQ(rows[0][1].abs().sum().item<double>(), 0) << dtype;
    EXPECT_TRUE(rows[1][0].equal(table[2])) << dtype;
    EXPECT_EQ(rows[1][1].abs().sum().item<double>(), 0) << dtype;
    EXPECT_TRUE(ops::embedding(table, indices, positions)[1][1].equal(positions[1])) << dtype;
    (rows * factors).sum().backward();
    auto expected = torch::zeros({7, 5}, dtype);
    expected[6] = factors[0][0];
    expected[2] = factors[1][0];
    EXPECT_TRUE(table.grad().equal(expected)) << dtype;
  }
  const auto table = leaf(normal({7, 5}, 1), at::kFloat);
  const auto indices = torch::tensor({std::int64_t{6}, ops::kNoRow});
  const auto uses = ops::uses_in_graph(ops::embedding(table, indices).sum(), table);
  ASSERT_EQ(uses.lookups.size(), 1U);
  EXPECT_TRUE(uses.lookups[0].equal(torch::tensor({std::int64_t{6}})));
}

TEST(EmbeddingOp, TakesNoIndices) {
  const auto table = leaf(normal({7, 5}, 1), at::kFloat);
  const auto none = torch::empty({3, 0}, at::kLong);
  const auto rows = ops::embedding(table, none, torch::empty({0, 5}));
  EXPECT_EQ(rows.sizes(), at::IntArrayRef({3, 0, 5}));
  rows.sum().backward();
  EXPECT_EQ(table.grad().abs().max().item<float>(), 0.0F);
}

TEST(EmbeddingOp, RefusesWhatDoesNotFit) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto ones = [&](at::IntArrayRef shape) { return torch::ones(shape, dtype); };
    const auto table = ones({7, 5}), zeros = torch::zeros({2, 3}, at::kLong);
    EXPECT_THROW(ops::embedding(ones({5}), zeros), ShapeError);
    EXPECT_THROW(ops::embedding(table, zeros.to(at::kInt)), ShapeError);
    EXPECT_THROW(ops::embedding(table, torch::zeros({}, at::kLong)), ShapeError);
    EXPECT_THROW(ops::embedding(table, zeros, ones({2, 5})), ShapeError);
    EXPECT_THROW(ops::embedding(table, zeros, ones({3, 4})), ShapeError);
    EXPECT_THROW(ops::embedding(table, zeros, ones({3, 5}).to(at::kHalf)), ShapeError);
    EXPECT_THROW(ops::embedding(table, zeros + 7), c10::IndexError);
    EXPECT_THROW(ops::embedding(table, zeros - 1), c10::IndexError);
  }
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/attention.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>

#include "tests/support/operations_of_training.h"
#include "trireme/base/error.h"
#include "trireme/ops/kernels/attention_kernels.h"

namespace trireme {
namespace {

using ops::AttentionMask;
using testing::attention_operation;
using testing::AttentionSizes;
using testing::Layout;
using testing::normal;
using testing::Operation;
using testing::packed_documents;

bool sees(const AttentionMask& mask, std::int64_t b, std::int64_t token, std::int64_t key) {
  if (key > token || (mask.window > 0 && key <= token - mask.window)) return false;
  return !mask.document_starts_BS.defined() ||
         key >= mask.document_starts_BS[b][token].item<std::int64_t>();
}

// One query of one head, in f64: softmax over the keys it sees, times their values.
at::Tensor query_by_definition(const at::Tensor& q_D, const at::Tensor& k_SD,
                               const at::Tensor& v_SD, const std::vector<bool>& seen) {
  std::vector<std::int64_t> keys;
  for (std::size_t s = 0; s < seen.size(); ++s) {
    if (seen[s]) keys.push_back(static_cast<std::int64_t>(s));
  }
  const at::Tensor chosen = torch::tensor(keys, at::kLong);
  const at::Tensor weights =
      (k_SD.index_select(0, chosen).matmul(q_D) / std::sqrt(static_cast<double>(q_D.size(0))))
          .exp();
  return weights.matmul(v_SD.index_select(0, chosen)) / weights.sum();
}

at::Tensor by_definition(const Operation& operation, const AttentionMask& mask) {
  const at::Tensor &q = operation.inputs[0], &k = operation.inputs[1], &v = operation.inputs[2];
  const auto B = q.size(0), T = q.size(1), H = q.size(2), K = k.size(1), S = k.size(2);
  at::Tensor out = torch::empty_like(q);
  for (std::int64_t b = 0; b < B; ++b) {
    for (std::int64_t t = 0; t < T; ++t) {
      std::vector<bool> seen;
      for (std::int64_t s = 0; s < S; ++s) seen.push_back(sees(mask, b, S - T + t, s));
      for (std::int64_t h = 0; h < H; ++h) {
        const auto kv = h / (H / K);
        out[b][t][h] = query_by_definition(q[b][t][h], k[b][kv], v[b][kv], seen);
      }
    }
  }
  return out;
}

TEST(Attention, CompositionIsSoftmaxOverTheKeysThatAQuerySees) {
  const AttentionMask packed{.document_starts_BS = packed_documents(2, 9, {3, 1, 5})};
  const AttentionMask both{.window = 2, .document_starts_BS = packed_documents(2, 9, {3, 1, 5})};
  const std::vector<std::pair<AttentionSizes, AttentionMask>> cases = {
      {{.B = 2, .T = 5, .S = 5, .H = 3, .K = 3, .D = 4}, {}},
      {{.B = 2, .T = 5, .S = 5, .H = 6, .K = 2, .D = 4}, {}},
      {{.B = 1, .T = 2, .S = 7, .H = 4, .K = 1, .D = 3}, {}},
      {{.B = 1, .T = 1, .S = 1, .H = 4, .K = 2, .D = 1}, {}},
      {{.B = 1, .T = 6, .S = 8, .H = 2, .K = 1, .D = 4}, {.window = 1}},
      {{.B = 1, .T = 6, .S = 8, .H = 2, .K = 1, .D = 4}, {.window = 3}},
      {{.B = 1, .T = 6, .S = 8, .H = 2, .K = 1, .D = 4}, {.window = 100}},
      {{.B = 2, .T = 9, .S = 9, .H = 2, .K = 2, .D = 4}, packed},
      {{.B = 2, .T = 4, .S = 9, .H = 2, .K = 2, .D = 4}, packed},
      {{.B = 2, .T = 9, .S = 9, .H = 2, .K = 2, .D = 4}, both}};
  for (const auto& [sizes, mask] : cases) {
    const Operation operation = attention_operation(sizes, mask);
    const at::Tensor out = operation.run(operation.inputs)[0];
    EXPECT_TRUE(out.allclose(by_definition(operation, mask), 1e-12, 1e-12)) << operation.name;
    EXPECT_TRUE(out.is_contiguous());
    testing::expect_gradients_of_differences(operation);
  }
}

// Queries across blocks of 96, keys across blocks of 192, head widths on both sides of a tile.
std::vector<Operation> head_widths_and_groups() {
  return {attention_operation({.B = 1, .T = 1, .S = 1, .H = 1, .K = 1, .D = 5}),
          attention_operation({.B = 2, .T = 201, .S = 201, .H = 2, .K = 2, .D = 5}),
          attention_operation({.B = 1, .T = 97, .S = 397, .H = 4, .K = 2, .D = 64}),
          attention_operation({.B = 1, .T = 401, .S = 401, .H = 3, .K = 1, .D = 80}),
          attention_operation({.B = 1, .T = 193, .S = 193, .H = 8, .K = 1, .D = 128}),
          attention_operation({.B = 1, .T = 100, .S = 290, .H = 1, .K = 1, .D = 256}),
          attention_operation({.B = 3, .T = 1, .S = 386, .H = 6, .K = 3, .D = 12})};
}

std::vector<Operation> masks() {
  const AttentionSizes all{.B = 2, .T = 403, .S = 403, .H = 4, .K = 2, .D = 20};
  const AttentionSizes some{.B = 2, .T = 150, .S = 403, .H = 3, .K = 1, .D = 20};
  std::vector<Operation> operations;
  for (const std::int64_t window : {1, 7, 200}) {
    operations.push_back(attention_operation(all, {.window = window}));
    operations.push_back(attention_operation(some, {.window = window}));
  }
  // A document of one token, one that ends with a block, one longer than two blocks.
  const at::Tensor starts = packed_documents(2, 403, {1, 191, 205, 6});
  for (const std::int64_t window : {0, 7, 200}) {
    const AttentionMask mask{.window = window, .document_starts_BS = starts};
    operations.push_back(attention_operation(all, mask));
    operations.push_back(attention_operation(some, mask));
  }
  return operations;
}

TEST(Attention, KernelsFollowF64) {
  testing::expect_follow_f64(head_widths_and_groups());
  testing::expect_follow_f64({head_widths_and_groups()[2]},
                             {Layout::kStrided, Layout::kExpandedGradients});
}

TEST(Attention, KernelsFollowF64UnderMasks) { testing::expect_follow_f64(masks()); }

// Heads wider than the kernels take, and no queries at all.
TEST(Attention, WhatTheKernelsDoNotTakeIsComposed) {
  testing::expect_follow_f64(
      {attention_operation({.B = 1, .T = 3, .S = 4, .H = 2, .K = 1, .D = 259})});
  const at::Tensor k = normal({2, 3, 5, 4}, 1).to(at::kFloat);
  const at::Tensor none = torch::empty({2, 0, 3, 4});
  EXPECT_EQ(ops::causal_attention(none, k, k).sizes(), none.sizes());
}

// A query that sees itself alone returns its value, and gives no gradient to q and k.
TEST(Attention, ARowThatSeesItselfReturnsItsValue) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto q = testing::leaf(normal({1, 250, 2, 16}, 1), dtype),
               k = testing::leaf(normal({1, 2, 250, 16}, 2), dtype),
               v = testing::leaf(normal({1, 2, 250, 16}, 3), dtype);
    const auto out = ops::causal_attention(q, k, v, {.window = 1});
    EXPECT_TRUE(out.equal(v.transpose(1, 2))) << dtype;
    const auto gradient = normal(out.sizes(), 4).to(dtype);
    out.backward(gradient);
    EXPECT_TRUE(v.grad().equal(gradient.transpose(1, 2))) << dtype;
    EXPECT_LT(q.grad().abs().max().item<double>(), 1e-5) << dtype;
    EXPECT_LT(k.grad().abs().max().item<double>(), 1e-5) << dtype;
  }
}

// What a query does not see has no influence to the last bit, however large.
TEST(Attention, HiddenTokensChangeNoBit) {
  const AttentionMask mask{.window = 50,
                           .document_starts_BS = packed_documents(1, 300, {130, 170})};
  const auto q = normal({1, 300, 2, 16}, 1).to(at::kFloat);
  const auto k = normal({1, 2, 300, 16}, 2).to(at::kFloat),
             v = normal({1, 2, 300, 16}, 3).to(at::kFloat);
  const auto before = ops::causal_attention(q, k, v, mask);
  auto other_k = k.clone(), other_v = v.clone();
  other_k.narrow(2, 0, 130).fill_(1e4);  // the first document
  other_v.narrow(2, 0, 130).fill_(1e4);
  const auto after = ops::causal_attention(q, other_k, other_v, mask);
  EXPECT_TRUE(after.narrow(1, 130, 170).equal(before.narrow(1, 130, 170)));
  EXPECT_FALSE(after.narrow(1, 0, 130).equal(before.narrow(1, 0, 130)));
}

// The running maximum: scores up to 200, rising and falling from block to block; e^200 is no f32.
TEST(Attention, LargeScoresDoNotOverflow) {
  for (const double sign : {1.0, -1.0}) {
    Operation operation = attention_operation({.B = 1, .T = 400, .S = 400, .H = 1, .K = 1, .D = 4});
    const at::Tensor ramp = torch::arange(400, at::kDouble).view({1, 1, 400, 1}) * sign;
    operation.inputs[0] = torch::full_like(operation.inputs[0], 0.25);  // scores: half the ramp
    operation.inputs[1] = operation.inputs[1] + ramp;
    // The sum of a score of 200 errs by a few 2^-17, and its exponential by as large a share.
    testing::expect_follows_f64(operation, {at::kFloat, 8 * 0x1p-17});
  }
}

TEST(Attention, NaNIsNotHidden) {
  const auto q = normal({1, 5, 1, 8}, 1).to(at::kFloat), v = normal({1, 1, 5, 8}, 3).to(at::kFloat);
  auto k = normal({1, 1, 5, 8}, 2).to(at::kFloat);
  k[0][0][3][2] = std::numeric_limits<float>::quiet_NaN();
  const auto out = ops::causal_attention(q, k, v);
  EXPECT_FALSE(out.narrow(1, 0, 3).isnan().any().item<bool>());
  EXPECT_TRUE(out.narrow(1, 3, 2).isnan().all().item<bool>());
}

TEST(Attention, DocumentsBeginWithTheirSeparator) {
  const at::Tensor tokens =
      at::tensor({5, 7, 0, 3, 0, 0, 4, 0, 1, 2, 3, 4, 5, 6}, at::kLong).view({2, 7});
  const at::Tensor starts = ops::document_starts(tokens, 0);
  EXPECT_TRUE(
      starts.equal(at::tensor({0, 0, 2, 2, 4, 5, 5, 0, 0, 0, 0, 0, 0, 0}, at::kLong).view({2, 7})));
  EXPECT_TRUE(ops::document_starts(tokens, 9).equal(at::zeros_like(tokens)));
  EXPECT_EQ(ops::document_starts(tokens.narrow(1, 0, 0), 0).numel(), 0);
  EXPECT_THROW(ops::document_starts(tokens.view({14}), 0), ShapeError);
  EXPECT_THROW(ops::document_starts(tokens.to(at::kFloat), 0), ShapeError);
}

TEST(Attention, CountsThePairsThatSeeEachOther) {
  const AttentionMask mask{.window = 7, .document_starts_BS = packed_documents(2, 40, {11, 5})};
  double pairs = 0;
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t token = 10; token < 40; ++token) {
      for (std::int64_t key = 0; key < 40; ++key) pairs += sees(mask, b, token, key) ? 1 : 0;
    }
  }
  const auto* starts = mask.document_starts_BS.data_ptr<std::int64_t>();
  EXPECT_EQ(ops::visible_pairs({.sequences = 2,
                                .queries = 30,
                                .keys = 40,
                                .query_begin = 10,
                                .window = 7,
                                .document_starts = starts + 10,
                                .document_stride = 40}),
            pairs);
}

TEST(Attention, RefusesWhatDoesNotFit) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto ones = [&](at::IntArrayRef shape) { return torch::ones(shape, dtype); };
    const auto q = ones({2, 5, 4, 6}), k = ones({2, 4, 5, 6});
    const auto with = [&](const AttentionMask& mask) { ops::causal_attention(q, k, k, mask); };
    EXPECT_THROW(ops::causal_attention(q, ones({2, 3, 5, 6}), ones({2, 3, 5, 6})), ShapeError);
    EXPECT_THROW(ops::causal_attention(q, ones({2, 4, 4, 6}), ones({2, 4, 4, 6})), ShapeError);
    EXPECT_THROW(ops::causal_attention(q, k, ones({2, 4, 5, 5})), ShapeError);
    EXPECT_THROW(ops::causal_attention(q, ones({1, 4, 5, 6}), ones({1, 4, 5, 6})), ShapeError);
    EXPECT_THROW(ops::causal_attention(q, ones({2, 4, 5, 7}), ones({2, 4, 5, 7})), ShapeError);
    EXPECT_THROW(ops::causal_attention(q, ones({2, 0, 5, 6}), ones({2, 0, 5, 6})), ShapeError);
    EXPECT_THROW(ops::causal_attention(q[0], k, k), ShapeError);
    EXPECT_THROW(ops::causal_attention(q, k, k.to(at::kBFloat16)), ShapeError);
    EXPECT_THROW(with({.window = -1}), ShapeError);
    EXPECT_THROW(with({.document_starts_BS = torch::zeros({2, 4}, at::kLong)}), ShapeError);
    EXPECT_THROW(with({.document_starts_BS = torch::zeros({2, 5}, at::kInt)}), ShapeError);
    EXPECT_THROW(with({.document_starts_BS = torch::ones({2, 5}, at::kLong)}), ShapeError);
    EXPECT_THROW(with({.document_starts_BS = torch::full({2, 5}, -1, at::kLong)}), ShapeError);
  }
}

}  // namespace
}  // namespace trireme

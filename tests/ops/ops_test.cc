// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The operations against their definitions, written out in f64.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "trireme/base/error.h"
#include "trireme/ops/activation.h"
#include "trireme/ops/attention.h"
#include "trireme/ops/embedding.h"
#include "trireme/ops/linear.h"
#include "trireme/ops/loss.h"
#include "trireme/ops/norm.h"
#include "trireme/ops/rotary.h"

namespace trireme {
namespace {

// Distinct values of size about 1.
at::Tensor wave(at::IntArrayRef shape, double frequency) {
  std::int64_t count = 1;
  for (const auto dim : shape) {
    count *= dim;
  }
  return (torch::arange(count, at::kDouble) * frequency).sin().view(shape);
}

double at4(const at::Tensor& x, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
  return x[a][b][c][d].item<double>();
}

// Query t of T sees keys 0 .. S - T + t; query head h reads kv head h / (H / K).
at::Tensor attention_by_definition(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto B = q.size(0), T = q.size(1), H = q.size(2), D = q.size(3);
  const auto K = k.size(1), S = k.size(2);
  auto out = torch::zeros_like(q);
  for (std::int64_t b = 0; b < B; ++b) {
    for (std::int64_t h = 0; h < H; ++h) {
      const auto kv = h / (H / K);
      for (std::int64_t t = 0; t < T; ++t) {
        std::vector<double> weights;
        double total = 0.0;
        for (std::int64_t s = 0; s <= S - T + t; ++s) {
          double score = 0.0;
          for (std::int64_t d = 0; d < D; ++d) {
            score += at4(q, b, t, h, d) * at4(k, b, kv, s, d);
          }
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(D))));
          total += weights.back();
        }
        for (std::int64_t d = 0; d < D; ++d) {
          double sum = 0.0;
          for (std::size_t s = 0; s < weights.size(); ++s) {
            sum += weights[s] / total * at4(v, b, kv, static_cast<std::int64_t>(s), d);
          }
          out[b][t][h][d] = sum;
        }
      }
    }
  }
  return out;
}

TEST(Attention, IsSoftmaxOverTheKeysThatAQuerySees) {
  struct Case {
    std::int64_t T, S, H, K;
  };
  for (const auto& [T, S, H, K] :
       {Case{5, 5, 3, 3}, Case{5, 5, 6, 2}, Case{2, 7, 4, 1}, Case{1, 6, 2, 2}, Case{1, 1, 4, 2}}) {
    const auto q = wave({2, T, H, 4}, 0.9) * 2, k = wave({2, K, S, 4}, 0.61) * 2,
               v = wave({2, K, S, 4}, 0.37);
    const auto out = ops::causal_attention(q, k, v);
    EXPECT_TRUE(out.allclose(attention_by_definition(q, k, v), 1e-12, 1e-12))
        << T << " " << S << " " << H << " " << K;
    EXPECT_TRUE(out.is_contiguous());
  }
}

TEST(Attention, RefusesShapesThatDoNotFit) {
  const auto q = wave({2, 5, 4, 6}, 0.3);
  EXPECT_THROW(ops::causal_attention(q, wave({2, 3, 5, 6}, 1), wave({2, 3, 5, 6}, 1)), ShapeError);
  EXPECT_THROW(ops::causal_attention(q, wave({2, 4, 4, 6}, 1), wave({2, 4, 4, 6}, 1)), ShapeError);
  EXPECT_THROW(ops::causal_attention(q, wave({2, 4, 5, 6}, 1), wave({2, 4, 5, 5}, 1)), ShapeError);
}

TEST(Rotary, TurnsPairsByPositionTimesFrequency) {
  const auto x = wave({2, 3, 2, 6}, 0.7);
  const auto turned = ops::rotate(x, ops::rotary_table(4, 3, 6, 100.0, x.options()));
  for (std::int64_t t = 0; t < 3; ++t) {
    for (std::int64_t d = 0; d < 3; ++d) {
      const double angle = static_cast<double>(t + 4) * std::pow(100.0, -2.0 * d / 6.0);
      const double a = at4(x, 1, t, 1, d), b = at4(x, 1, t, 1, d + 3);
      EXPECT_NEAR(at4(turned, 1, t, 1, d), a * std::cos(angle) - b * std::sin(angle), 1e-12);
      EXPECT_NEAR(at4(turned, 1, t, 1, d + 3), b * std::cos(angle) + a * std::sin(angle), 1e-12);
    }
  }
}

// Angles of far positions keep their precision.
TEST(Rotary, FarPositionsAreExact) {
  const auto table = ops::rotary_table(1'000'003, 1, 8, 10000.0, at::TensorOptions(at::kFloat));
  EXPECT_EQ(table.cos.scalar_type(), at::kFloat);
  for (std::int64_t d = 0; d < 4; ++d) {
    const double angle = 1'000'003.0 * std::pow(10000.0, -static_cast<double>(d) / 4.0);
    EXPECT_NEAR(table.cos[0][0][d].item<double>(), std::cos(angle), 1e-6) << d;
  }
}

TEST(Norm, RmsNormDividesByTheRootMeanSquare) {
  const auto x = wave({3, 7}, 0.8) * 5, weight = wave({7}, 0.3) + 2;
  const auto expected = x / (x.square().mean(-1, true) + 1e-3).sqrt() * weight;
  EXPECT_TRUE(ops::rms_norm(x, weight, 1e-3).allclose(expected, 1e-12, 1e-12));
  const auto narrow = ops::rms_norm(x.to(at::kBFloat16), weight.to(at::kBFloat16), 1e-3);
  EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(narrow.to(at::kDouble).allclose(expected, 0.02, 0.02));
}

TEST(Loss, IsTheMeanOfMinusLogSoftmax) {
  const auto logits = wave({4, 9}, 1.1) * 30;
  const auto targets = torch::tensor({8, 0, 3, 3}, at::kLong);
  double expected = 0.0;
  for (std::int64_t n = 0; n < 4; ++n) {
    const auto row = logits[n];
    expected += (row.exp().sum().log() - row[targets[n].item<std::int64_t>()]).item<double>() / 4;
  }
  EXPECT_NEAR(ops::cross_entropy(logits, targets).item<double>(), expected, 1e-12);
  const auto narrow = ops::cross_entropy(logits.to(at::kBFloat16), targets);
  EXPECT_EQ(narrow.scalar_type(), at::kFloat);
}

// Whole numbers: f32 and bf16 products are exact.
at::Tensor whole_numbers(at::IntArrayRef shape, std::int64_t modulus) {
  std::int64_t count = 1;
  for (const auto dim : shape) {
    count *= dim;
  }
  return ((torch::arange(count, at::kLong) * 7) % modulus - modulus / 2)
      .to(at::kDouble)
      .view(shape);
}

at::Tensor leaf(const at::Tensor& values, at::ScalarType dtype) {
  return values.detach().to(dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
}

TEST(LinearOp, EveryDtypeGivesTheProductAndItsGradients) {
  const auto x = whole_numbers({2, 3, 5}, 5), weight = whole_numbers({7, 5}, 3),
             bias = whole_numbers({7}, 5), y_grad = whole_numbers({2, 3, 7}, 3);
  const auto expected = x.matmul(weight.t()) + bias;
  const auto rows = y_grad.view({6, 7});
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto x_leaf = leaf(x, dtype), w_leaf = leaf(weight, dtype), b_leaf = leaf(bias, dtype);
    const auto y = ops::linear(x_leaf, w_leaf, b_leaf);
    EXPECT_EQ(y.scalar_type(), dtype);
    EXPECT_TRUE(y.to(at::kDouble).equal(expected)) << dtype;
    y.backward(y_grad.to(dtype));
    EXPECT_TRUE(x_leaf.grad().to(at::kDouble).equal(y_grad.matmul(weight))) << dtype;
    EXPECT_TRUE(w_leaf.grad().to(at::kDouble).equal(rows.t().matmul(x.view({6, 5})))) << dtype;
    EXPECT_TRUE(b_leaf.grad().to(at::kDouble).equal(rows.sum(0))) << dtype;
  }
}

TEST(LinearOp, TakesStridedInputsAndComputesOnlyTheGradientsAskedFor) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = whole_numbers({5, 6, 4}, 5).to(dtype).permute({2, 1, 0});     // columns strided
    const auto weight = whole_numbers({14, 5}, 3).to(dtype).slice(0, 0, 14, 2);  // every other row
    const auto frozen = weight.clone().requires_grad_();
    EXPECT_TRUE(ops::linear(x, weight, {}).equal(at::linear(x, weight))) << dtype;
    const auto one = ops::linear(x.narrow(0, 0, 1).narrow(1, 0, 1), frozen, {});
    one.sum().backward();
    EXPECT_TRUE(frozen.grad()[3].equal(x[0][0]));
    EXPECT_FALSE(ops::linear(x, weight, {}).requires_grad());
  }
  EXPECT_THROW(ops::linear(torch::ones({2, 5}), torch::ones({7, 4}), {}), ShapeError);
  EXPECT_THROW(ops::linear(torch::ones({2, 5}), torch::ones({7, 5}, at::kBFloat16), {}),
               ShapeError);
}

TEST(BatchedProduct, EveryDtypeGivesTheProductsAndTheirGradients) {
  const auto a = whole_numbers({3, 4, 5}, 5), b = whole_numbers({3, 5, 2}, 3),
             y_grad = whole_numbers({3, 4, 2}, 3);
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto a_leaf = leaf(a, dtype), b_leaf = leaf(b, dtype);
    const auto y = ops::batched_product(a_leaf, b_leaf);
    EXPECT_TRUE(y.to(at::kDouble).equal(a.bmm(b))) << dtype;
    y.backward(y_grad.to(dtype));
    EXPECT_TRUE(a_leaf.grad().to(at::kDouble).equal(y_grad.bmm(b.transpose(1, 2)))) << dtype;
    EXPECT_TRUE(b_leaf.grad().to(at::kDouble).equal(a.transpose(1, 2).bmm(y_grad))) << dtype;
  }
}

TEST(BatchedProduct, ReadsStridedViews) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto a = whole_numbers({3, 5, 4}, 5).to(dtype).transpose(1, 2);
    const auto b = whole_numbers({3, 9, 2}, 3).to(dtype).narrow(1, 2, 5);
    const auto same = whole_numbers({1, 5, 2}, 3).to(dtype).expand({3, 5, 2});
    EXPECT_TRUE(ops::batched_product(a, b).equal(at::bmm(a, b))) << dtype;
    EXPECT_TRUE(ops::batched_product(a, same).equal(at::bmm(a, same))) << dtype;
  }
  EXPECT_THROW(ops::batched_product(torch::ones({3, 4, 5}), torch::ones({2, 5, 2})), ShapeError);
  EXPECT_THROW(ops::batched_product(torch::ones({3, 4, 5}), torch::ones({3, 4, 2})), ShapeError);
}

// LibTorch 1.13 ends at 256 where both sums are 2000.
TEST(Bf16, LongSumsOfGradientsAreExact) {
  const auto ones = torch::ones({2000, 3}, at::kBFloat16);
  const auto table = torch::zeros({5, 3}, at::kBFloat16).requires_grad_();
  ops::embedding(table, torch::full({2000}, 4, at::kLong)).backward(ones);
  EXPECT_EQ(table.grad()[4][2].item<float>(), 2000.0F);
  EXPECT_EQ(table.grad()[0][0].item<float>(), 0.0F);
  const auto x = wave({2000, 3}, 0.7).to(at::kBFloat16);
  const auto weight = torch::ones({3}, at::kBFloat16).requires_grad_(),
             bias = torch::zeros({3}, at::kBFloat16).requires_grad_();
  ops::layer_norm(x, weight, bias, 1e-5).backward(ones);
  EXPECT_EQ(bias.grad()[1].item<float>(), 2000.0F);
}

// Forward and gradients of bf16 against f64 of the same rounded inputs; 1 % is two roundings.
TEST(Bf16, FollowsF64) {
  const auto x = wave({6, 8}, 0.7).to(at::kBFloat16), g = wave({6, 8}, 0.3).to(at::kBFloat16);
  const auto weight = (wave({8}, 0.9) + 1.5).to(at::kBFloat16),
             bias = wave({8}, 0.2).to(at::kBFloat16);
  const auto run = [&](at::ScalarType dtype, const auto& function) {
    const auto a = leaf(x, dtype), w = leaf(weight, dtype), b = leaf(bias, dtype);
    const auto y = function(a, w, b);
    y.backward(g.to(dtype));
    auto results = torch::cat({y.detach().flatten(), a.grad().flatten()});
    for (const auto& leaf : {w, b}) {
      results = leaf.grad().defined() ? torch::cat({results, leaf.grad()}) : results;
    }
    return results.to(at::kDouble);
  };
  const auto compare = [&](const char* what, const auto& function) {
    EXPECT_TRUE(run(at::kBFloat16, function).allclose(run(at::kDouble, function), 0.01, 0.01))
        << what;
  };
  compare("gelu", [](const auto& a, const auto&, const auto&) { return ops::gelu(a); });
  compare("swiglu", [](const auto& a, const auto& w, const auto&) { return ops::swiglu(a, w); });
  compare("layer_norm", [](const auto& a, const auto& w, const auto& b) {
    return ops::layer_norm(a, w, b, 1e-5);
  });
  compare("rms_norm",
          [](const auto& a, const auto& w, const auto&) { return ops::rms_norm(a, w, 1e-5); });
}

}  // namespace
}  // namespace trireme

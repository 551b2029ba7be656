// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The operations against their definitions, written out in f64.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "trireme/base/error.h"
#include "trireme/ops/attention.h"
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

}  // namespace
}  // namespace trireme

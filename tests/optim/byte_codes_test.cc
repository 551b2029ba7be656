// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// 8-bit state: how near the values stay, what never changes, what it saves.
#include "trireme/optim/byte_codes.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/optim/shard_run.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme::optim {
namespace {

using detail::kCodeBlock;

constexpr std::int64_t kCount = 3 * kCodeBlock + 77;

struct Coded {
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(kCount);
  std::vector<float> scales = std::vector<float>((kCount + kCodeBlock - 1) / kCodeBlock);
  std::vector<float> values = std::vector<float>(kCount);
};

Coded coded(const std::vector<float>& values, bool is_signed) {
  Coded result;
  (is_signed ? detail::encode_signed : detail::encode_unsigned)(
      kCount, values.data(), result.codes.data(), result.scales.data(), {});
  (is_signed ? detail::decode_signed : detail::decode_unsigned)(
      kCount, result.codes.data(), result.scales.data(), result.values.data());
  return result;
}

// Over seven decades, each block with a largest value of its own.
std::vector<float> spread_values(bool is_signed) {
  const at::Tensor exponents = testing::normal({kCount}, 1).to(at::kDouble) * 1.5;
  std::vector<float> values;
  for (std::int64_t i = 0; i < kCount; ++i) {
    const double size = std::pow(10.0, exponents[i].item<double>() - 3 * (i / kCodeBlock));
    values.push_back(static_cast<float>(is_signed && i % 3 == 0 ? -size : size));
  }
  values[5] = 0.0F;
  return values;
}

class ByteCodes : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Kinds, ByteCodes, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "signed" : "unsigned"; });

TEST_P(ByteCodes, ValuesStayNear) {
  const std::vector<float> values = spread_values(GetParam());
  const Coded result = coded(values, GetParam());
  for (std::int64_t i = 0; i < kCount; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const double scale = result.scales[static_cast<std::size_t>(i / kCodeBlock)];
    const double share = std::fabs(values[at]) / scale;
    // Decade d has top / 2^d intervals, and a value moves by at most half of one; the topmost one
    // stands for its upper end.
    const double top = GetParam() ? 64 : 128;
    const double decade = std::floor(-std::log10(std::max(share, 1e-7)));
    const double interval = 0.9 * std::pow(10.0, -decade) / (top / std::pow(2.0, decade));
    EXPECT_LE(std::fabs(result.values[at] - values[at]) / scale, 1.01 * interval) << values[at];
    EXPECT_FALSE(result.values[at] * values[at] < 0.0F);
  }
}

TEST_P(ByteCodes, TheLargestValueAndZeroAreKept) {
  const std::vector<float> values = spread_values(GetParam());
  const Coded result = coded(values, GetParam());
  EXPECT_EQ(result.values[5], 0.0F);
  for (std::int64_t block = 0; block * kCodeBlock < kCount; ++block) {
    const auto larger = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    const auto begin = static_cast<std::ptrdiff_t>(block * kCodeBlock);
    const auto end = static_cast<std::ptrdiff_t>(std::min(kCount, (block + 1) * kCodeBlock));
    EXPECT_EQ(
        *std::max_element(values.begin() + begin, values.begin() + end, larger),
        *std::max_element(result.values.begin() + begin, result.values.begin() + end, larger));
  }
}

TEST_P(ByteCodes, CodingWhatWasDecodedChangesNothing) {
  const Coded once = coded(spread_values(GetParam()), GetParam());
  const Coded twice = coded(once.values, GetParam());
  EXPECT_EQ(once.codes, twice.codes);
  EXPECT_EQ(once.values, twice.values);
}

// A running mean that forgets a hundredth in each step does forget.
TEST_P(ByteCodes, RoundingByChanceKeepsTheMean) {
  const std::vector<float> values = spread_values(GetParam());
  std::vector<double> sums(kCount), squares(kCount);
  constexpr int kRounds = 4000;
  Coded result;
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    const detail::CodeRounding rounding{true, round * 0x9E3779B9U, 7};
    (GetParam() ? detail::encode_signed : detail::encode_unsigned)(
        kCount, values.data(), result.codes.data(), result.scales.data(), rounding);
    (GetParam() ? detail::decode_signed : detail::decode_unsigned)(
        kCount, result.codes.data(), result.scales.data(), result.values.data());
    for (std::size_t i = 0; i < kCount; ++i) {
      sums[i] += result.values[i] / kRounds;
      squares[i] += double{result.values[i]} * result.values[i] / kRounds;
    }
  }
  int moved = 0;
  for (std::size_t i = 0; i < kCount; ++i) {
    const double share = std::fabs(values[i]) / result.scales[i / kCodeBlock];
    if (share < 1e-7) continue;  // below the least value of the unsigned codes
    const double deviation = std::sqrt(std::max(0.0, squares[i] - sums[i] * sums[i]));
    moved += deviation > 0 ? 1 : 0;
    // Five standard errors of the mean, and f32 roundings.
    EXPECT_LE(std::fabs(sums[i] - values[i]),
              5 * deviation / std::sqrt(kRounds) + 1e-6 * std::fabs(values[i]))
        << values[i] << " share " << share;
  }
  EXPECT_GT(moved, kCount / 2);
}

TEST(UnsignedByteCodes, NoValueAboveZeroBecomesZero) {
  std::vector<float> values(kCount, 1e-30F);
  values[0] = 1.0F;
  const Coded result = coded(values, false);
  EXPECT_GT(result.values[1], 0.0F);
}

TEST(EightBitState, TakesAByteAndAScaleForEachBlock) {
  const std::int64_t size = testing::odd_space().segments.back().end;
  install_caching_allocator();
  const auto in_use = [] { return process_memory().report().current[MemoryCategory::kOptimizer]; };
  const std::int64_t before = in_use();
  const auto adamw = make_optimizer({.name = "adamw", .state = "8bit"}, testing::odd_space());
  EXPECT_EQ(in_use() - before, 2 * (size + 4 * size / kCodeBlock));
}

// A least-squares problem, solved as well as with f32 state.
TEST(EightBitState, LearnsAsF32StateDoes) {
  const auto final_loss = [](const std::string& name, const std::string& state) {
    OptimizerSpace space;
    space.parameters = {{{"w", {29, 17}, 0, 29 * 17}, true}};
    space.segments = {{0, kShardBlock}};
    const auto optimizer =
        make_optimizer({.name = name, .weight_decay = 0.0, .state = state}, space);
    const at::Tensor inputs = testing::normal({211, 29}, 3).to(at::kFloat);
    const at::Tensor targets = inputs.matmul(testing::normal({29, 17}, 4).to(at::kFloat)) +
                               0.1 * testing::normal({211, 17}, 5).to(at::kFloat);
    const at::Tensor weights = torch::zeros({kShardBlock}), gradients = torch::zeros_like(weights);
    const optim::PieceUpdate piece{weights, gradients};
    double loss = 0;
    for (int step = 0; step < 400; ++step) {
      const at::Tensor error =
          inputs.matmul(weights.narrow(0, 0, 29 * 17).view({29, 17})) - targets;
      loss = error.square().mean().item<double>();
      gradients.narrow(0, 0, 29 * 17).view({29, 17}).copy_(inputs.t().matmul(error) / 211.0);
      optimizer->step({.pieces = {&piece, 1},
                       .learning_rate = (name == "lion" ? 0.03 : 0.05) * (1 - step / 400.0)});
    }
    return loss;
  };
  for (const char* name : {"adamw", "adam", "lion"}) {
    const double f32 = final_loss(name, "f32"), bytes = final_loss(name, "8bit");
    // The noise of the targets alone is 0.01. Lion never stands still.
    const bool lion = std::string(name) == "lion";
    EXPECT_LT(f32, lion ? 0.03 : 0.02) << name;
    EXPECT_LT(bytes, (lion ? 1.3 : 1.05) * f32) << name;
  }
}

}  // namespace
}  // namespace trireme::optim

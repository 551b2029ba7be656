// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// AdamW, as what every elementwise method shares is seen in it.
#include <gtest/gtest.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/compute_threads.h"
#include "tests/support/flat_optimizer.h"
#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/optim/optimizer.h"

namespace trireme {
namespace {

using optim::OptimizerConfig;
using testing::FlatOptimizer;

at::Tensor normal(std::int64_t count, std::uint64_t stream) {
  at::Tensor values = torch::empty({count});
  const RandomStream random(17, stream);
  for (std::int64_t i = 0; i < count; ++i) {
    values.data_ptr<float>()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
  }
  return values;
}

// Kingma and Ba's algorithm with decoupled decay, one element in f64.
struct ScalarAdamW {
  OptimizerConfig config;
  double weight, decay, beta1 = *config.beta1, beta2 = *config.beta2, first = 0.0, second = 0.0;
  int steps = 0;

  void step(double gradient, double learning_rate) {
    ++steps;
    first = beta1 * first + (1.0 - beta1) * gradient;
    second = beta2 * second + (1.0 - beta2) * gradient * gradient;
    const double mean = first / (1.0 - std::pow(beta1, steps));
    const double square = second / (1.0 - std::pow(beta2, steps));
    weight -= learning_rate * decay * weight;
    weight -= learning_rate * mean / (std::sqrt(square) + *config.epsilon);
  }
};

TEST(AdamW, FollowsTheScalarAlgorithm) {
  constexpr std::int64_t kSize = 101, kDecayBegin = 13, kDecayEnd = 64;
  const OptimizerConfig config{.beta1 = 0.85, .beta2 = 0.97, .epsilon = 1e-6, .weight_decay = 0.3};
  FlatOptimizer adamw(config, kSize, {{kDecayBegin, kDecayEnd}});
  const at::Tensor weights = normal(kSize, 0);
  std::vector<ScalarAdamW> expected;
  for (std::int64_t i = 0; i < kSize; ++i) {
    const bool decays = i >= kDecayBegin && i < kDecayEnd;
    expected.push_back({config, weights[i].item<double>(), decays ? *config.weight_decay : 0.0});
  }
  for (std::uint64_t step = 1; step <= 25; ++step) {
    const at::Tensor gradients = normal(kSize, step);
    const double rate = 0.01 / static_cast<double>(step), scale = 0.5;
    adamw.step({.weights = weights,
                .gradients = gradients,
                .learning_rate = rate,
                .gradient_scale = scale});
    for (std::int64_t i = 0; i < kSize; ++i) {
      auto& element = expected[static_cast<std::size_t>(i)];
      element.step(scale * gradients[i].item<double>(), rate);
      // A few f32 roundings per step of values near 1.
      ASSERT_NEAR(weights[i].item<double>(), element.weight, 2e-6) << "step " << step << ", " << i;
    }
  }
  EXPECT_EQ(adamw.get().steps(), 25);
}

TEST(AdamW, AgreesWithTorch) {
  constexpr std::int64_t kSize = 1013;
  const OptimizerConfig config{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};
  FlatOptimizer adamw(config, kSize, {{0, kSize}});
  const at::Tensor weights = normal(kSize, 0);
  const at::Tensor reference = weights.clone().requires_grad_();
  torch::optim::AdamW torch_adamw(
      {reference}, torch::optim::AdamWOptions(3e-3).betas({0.9, 0.95}).eps(1e-8).weight_decay(0.1));
  for (std::uint64_t step = 1; step <= 20; ++step) {
    const at::Tensor gradients = normal(kSize, step);
    adamw.step({.weights = weights, .gradients = gradients, .learning_rate = 3e-3});
    reference.mutable_grad() = gradients;
    torch_adamw.step();
    // Weights up to 4, whose last bit is 2.4e-7 and may differ in each step.
    ASSERT_LT((weights - reference.detach()).abs().max().item<double>(), 1e-5) << "step " << step;
  }
}

// Moments of what gets no gradient any more must not end among the denormals, where each operation
// takes some hundred times as long.
TEST(AdamW, MomentsThatFadeEndAtZero) {
  FlatOptimizer adamw(OptimizerConfig(), 3, {});
  const at::Tensor weights = torch::ones({3});
  adamw.step({.weights = weights, .gradients = torch::full({3}, 1e-3), .learning_rate = 0.0});
  constexpr int kSteps = 3000;  // 0.95^3000 = 1e-67
  for (int step = 0; step < kSteps; ++step) {
    adamw.step({.weights = weights, .gradients = torch::zeros({3}), .learning_rate = 0.0});
    const float moment = adamw.moment(1)[1].item<float>();
    ASSERT_TRUE(moment == 0.0F || moment >= std::numeric_limits<float>::min()) << step;
  }
  EXPECT_EQ(adamw.moment(1)[1].item<float>(), 0.0F);
}

// Ranges of different length and many threads change no bit.
TEST(AdamW, ThreadsDoNotMatter) {
  constexpr std::int64_t kSize = 100'003;
  const auto run = [&](int threads) {
    const testing::ComputeThreads guard(threads);
    const at::Tensor weights = normal(kSize, 0);
    const at::Tensor copy = torch::empty({kSize}, at::kBFloat16);
    FlatOptimizer adamw({.stochastic_rounding = false}, kSize, {{1000, 60'000}});
    for (std::uint64_t step = 1; step <= 3; ++step) {
      adamw.step({.weights = weights,
                  .gradients = normal(kSize, step),
                  .learning_rate = 0.01,
                  .gradient_scale = 0.37,
                  .working_copy = copy});
    }
    EXPECT_TRUE(copy.equal(weights.to(at::kBFloat16)));
    return weights;
  };
  const at::Tensor one = run(1);
  EXPECT_TRUE(one.equal(run(2)));
  EXPECT_TRUE(one.equal(run(5)));
}

TEST(AdamW, RoundsTheWorkingCopyToNearestEvenAndKeepsNaN) {
  const std::vector<float> values = {1.0F,
                                     1.00390625F,  // halfway, down to even
                                     1.01171875F,  // halfway, up to even
                                     1.0039063F,   // just above halfway
                                     -3.1415927F,
                                     1e-37F,
                                     3.4e38F,
                                     std::numeric_limits<float>::infinity(),
                                     std::numeric_limits<float>::quiet_NaN()};
  const auto size = static_cast<std::int64_t>(values.size());
  const at::Tensor weights = torch::tensor(values);
  const at::Tensor copy = torch::empty({size}, at::kBFloat16);
  FlatOptimizer adamw(OptimizerConfig{.stochastic_rounding = false}, size, {});
  adamw.step({.weights = weights, .gradients = torch::zeros({size}), .working_copy = copy});
  EXPECT_TRUE(weights.narrow(0, 0, size - 1).equal(torch::tensor(values).narrow(0, 0, size - 1)));
  const at::Tensor expected = torch::tensor(values).to(at::kBFloat16);
  EXPECT_TRUE(copy.narrow(0, 0, size - 1).equal(expected.narrow(0, 0, size - 1))) << copy;
  EXPECT_TRUE(std::isnan(copy[size - 1].item<float>()));
}

TEST(AdamW, ClearsGradientsOnlyWhenAsked) {
  constexpr std::int64_t kSize = 70'001;
  const at::Tensor kept = normal(kSize, 1), cleared = kept.clone(), before = kept.clone();
  const at::Tensor a = normal(kSize, 0), b = a.clone();
  FlatOptimizer keeping(OptimizerConfig{}, kSize, {{5, 60'000}}),
      clearing(OptimizerConfig{}, kSize, {{5, 60'000}});
  keeping.step({.weights = a, .gradients = kept, .learning_rate = 0.01});
  clearing.step(
      {.weights = b, .gradients = cleared, .learning_rate = 0.01, .clear_gradients = true});
  EXPECT_TRUE(a.equal(b));
  EXPECT_TRUE(kept.equal(before));
  EXPECT_TRUE(cleared.equal(torch::zeros({kSize})));
}

// The working copies that steps without any change make of the same weights.
class StochasticRounding : public ::testing::Test {
 protected:
  // [steps, size] bf16.
  static at::Tensor copies(const at::Tensor& weights, std::int64_t steps) {
    const std::int64_t size = weights.numel();
    FlatOptimizer adamw({.weight_decay = 0, .stochastic_rounding = true}, size, {});
    const at::Tensor all = torch::empty({steps, size}, at::kBFloat16);
    for (std::int64_t step = 0; step < steps; ++step) {
      adamw.step(
          {.weights = weights, .gradients = torch::zeros({size}), .working_copy = all[step]});
    }
    return all;
  }
};

// Each result is one of the two neighbours in bf16, and the mean of n of them is the value: their
// deviation is at most half of their distance, that of the mean sqrt(n) times smaller. Five of
// those are passed once in two million times; the numbers are fixed.
TEST_F(StochasticRounding, TheMeanIsTheValue) {
  constexpr std::int64_t kSize = 4096, kSteps = 32;
  const double deviations = 5 / std::sqrt(static_cast<double>(kSize * kSteps));
  for (const float value : {1.001F, -3.1F, 1.99999F, 6.5e-5F, -2.5e30F}) {
    const at::Tensor all = copies(torch::full({kSize}, value), kSteps).to(at::kDouble);
    const double low = all.min().item<double>(), high = all.max().item<double>();
    const double distance = std::ldexp(1.0, std::ilogb(value) - 7);  // bf16 has 8 bits
    EXPECT_LE(low, value);
    EXPECT_GE(high, value);
    EXPECT_EQ(high - low, distance) << value;
    EXPECT_TRUE(all.eq(low).logical_or(all.eq(high)).all().item<bool>()) << value;
    EXPECT_NEAR(all.mean().item<double>(), value, deviations * distance / 2) << value;
  }
}

// Neither from one step to the next nor from one element to the next.
TEST_F(StochasticRounding, ResultsAreNotRelated) {
  constexpr std::int64_t kSize = 8192;
  const at::Tensor all = copies(torch::full({kSize}, 1.00390625F), 2);  // halfway
  const at::Tensor up = all.gt(1).to(at::kDouble) - 0.5;
  const double deviation = 0.25 / std::sqrt(static_cast<double>(kSize));
  EXPECT_NEAR((up[0] * up[1]).mean().item<double>(), 0, 5 * deviation) << "steps";
  EXPECT_NEAR((up[0].slice(0, 1) * up[0].slice(0, 0, kSize - 1)).mean().item<double>(), 0,
              5 * deviation)
      << "elements";
}

TEST_F(StochasticRounding, KeepsWhatBf16Has) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const at::Tensor weights =
      torch::tensor({0.0F, -0.0F, 1.0F, -1.5F, 3.0e38F, kInfinity, -kInfinity})
          .to(at::kBFloat16)
          .to(at::kFloat);
  EXPECT_TRUE(copies(weights, 100).to(at::kFloat).equal(weights.expand({100, 7})));
  // The second NaN has all bits set: one more, and it would be -0.
  const at::Tensor nans =
      torch::tensor({std::numeric_limits<float>::quiet_NaN(), std::bit_cast<float>(0x7FFFFFFF)});
  EXPECT_TRUE(copies(nans, 100).isnan().all().item<bool>());
}

TEST_F(StochasticRounding, AnyThreadsGiveTheSameBits) {
  const at::Tensor weights = normal(50'001, 0);
  const at::Tensor whole = copies(weights, 2);
  EXPECT_FALSE(whole[0].equal(whole[1]));
  const testing::ComputeThreads threads(3);
  EXPECT_TRUE(copies(weights, 2).equal(whole));
}

TEST_F(StochasticRounding, IsTheDefaultAndIsRepeatedForACheckpoint) {
  constexpr std::int64_t kSize = 20'011;
  for (const bool stochastic : {true, false}) {
    const OptimizerConfig config =
        stochastic ? OptimizerConfig{} : OptimizerConfig{.stochastic_rounding = false};
    FlatOptimizer adamw(config, kSize, {});
    const at::Tensor weights = normal(kSize, 0);
    const at::Tensor copy = torch::empty({kSize}, at::kBFloat16), again = torch::empty_like(copy);
    for (std::uint64_t step = 1; step <= 2; ++step) {
      adamw.step({.weights = weights,
                  .gradients = normal(kSize, step),
                  .learning_rate = 1e-3,
                  .working_copy = copy});
    }
    EXPECT_EQ(copy.equal(weights.to(at::kBFloat16)), !stochastic);
    FlatOptimizer resumed(config, kSize, {});
    resumed.get().set_steps(2);
    resumed.round(weights, again);
    EXPECT_TRUE(again.equal(copy)) << stochastic;
  }
}

TEST(AdamW, RefusesBuffersThatDoNotFit) {
  FlatOptimizer adamw({}, 8, {});
  const at::Tensor good = torch::zeros({8});
  const std::vector<testing::FlatUpdate> bad = {
      {.weights = torch::zeros({9}), .gradients = good},
      {.weights = good, .gradients = torch::zeros({8}, at::kBFloat16)},
      {.weights = torch::zeros({16}).slice(0, 0, 16, 2), .gradients = good},
      {.weights = good, .gradients = good, .working_copy = torch::zeros({8})},
      {.weights = good, .gradients = good, .gradient_factor = good},
      {.weights = good, .gradients = {}}};
  for (const testing::FlatUpdate& update : bad) EXPECT_THROW(adamw.step(update), ShapeError);
  EXPECT_THROW(adamw.get().step({}), ShapeError);
  EXPECT_EQ(adamw.get().steps(), 0);
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// sgd, adagrad, adam and lion against torch and against their papers' lines in f64.
#include "trireme/optim/elementwise.h"

#include <gtest/gtest.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <functional>

#include "tests/support/flat_optimizer.h"
#include "tests/support/operation.h"

namespace trireme {
namespace {

using testing::FlatOptimizer;

constexpr std::int64_t kSize = 20'011, kDecayEnd = 7'013;

at::Tensor values(std::uint64_t stream) { return testing::normal({kSize}, stream).to(at::kFloat); }

// Twenty steps beside an optimizer of torch over the part that decays and the one that does not.
template <class TorchOptimizer, class Options>
void expect_torch(const optim::OptimizerConfig& config, const Options& options, double rate) {
  FlatOptimizer ours(config, kSize, {{0, kDecayEnd}});
  const at::Tensor weights = values(0);
  const at::Tensor decays = weights.narrow(0, 0, kDecayEnd).clone().requires_grad_();
  const at::Tensor free = weights.narrow(0, kDecayEnd, kSize - kDecayEnd).clone().requires_grad_();
  Options without_decay = options;
  without_decay.weight_decay(0.0);
  TorchOptimizer for_decays({decays}, options), for_free({free}, without_decay);
  for (std::uint64_t step = 1; step <= 20; ++step) {
    const at::Tensor gradients = values(step);
    ours.step({.weights = weights, .gradients = gradients, .learning_rate = rate});
    decays.mutable_grad() = gradients.narrow(0, 0, kDecayEnd);
    free.mutable_grad() = gradients.narrow(0, kDecayEnd, kSize - kDecayEnd);
    for_decays.step();
    for_free.step();
    // Weights up to some 10, whose last bit is 1e-6 and may differ in each step.
    const at::Tensor expected = torch::cat({decays.detach(), free.detach()});
    ASSERT_LT((weights - expected).abs().max().item<double>(), 2e-5) << "step " << step;
  }
}

TEST(Sgd, AgreesWithTorch) {
  expect_torch<torch::optim::SGD>({.name = "sgd", .weight_decay = 0.2},
                                  torch::optim::SGDOptions(0.02).momentum(0.9).weight_decay(0.2),
                                  0.02);
  expect_torch<torch::optim::SGD>({.name = "sgd", .momentum = 0.0}, torch::optim::SGDOptions(0.1),
                                  0.1);
}

TEST(Adagrad, AgreesWithTorch) {
  expect_torch<torch::optim::Adagrad>(
      {.name = "adagrad", .epsilon = 1e-6, .weight_decay = 0.2},
      torch::optim::AdagradOptions(0.05).eps(1e-6).weight_decay(0.2), 0.05);
}

TEST(Adam, AgreesWithTorch) {
  expect_torch<torch::optim::Adam>(
      {.name = "adam", .weight_decay = 0.2},
      torch::optim::AdamOptions(3e-3).betas({0.9, 0.999}).eps(1e-8).weight_decay(0.2), 3e-3);
}

// Chen et al. 2023, algorithm 2, in f64.
TEST(Lion, FollowsItsPaper) {
  constexpr double kBeta1 = 0.9, kBeta2 = 0.99, kDecay = 0.3, kRate = 1e-3, kScale = 0.5;
  FlatOptimizer ours({.name = "lion", .weight_decay = kDecay}, kSize, {{0, kDecayEnd}});
  const at::Tensor weights = values(0);
  at::Tensor expected = weights.to(at::kDouble), moment = torch::zeros_like(expected);
  at::Tensor decay = torch::zeros_like(expected);
  decay.narrow(0, 0, kDecayEnd).fill_(kDecay);
  for (std::uint64_t step = 1; step <= 20; ++step) {
    const at::Tensor gradients = values(step), g = kScale * gradients.to(at::kDouble);
    ours.step({.weights = weights,
               .gradients = gradients,
               .learning_rate = kRate,
               .gradient_scale = kScale});
    const at::Tensor mixed = kBeta1 * moment + (1 - kBeta1) * g;
    expected = expected - kRate * (mixed.sign() + decay * expected);
    moment = kBeta2 * moment + (1 - kBeta2) * g;
    // f32 roundings of values up to 4; and signs of what is next to nothing may differ.
    const at::Tensor sure = mixed.abs() > 1e-6;
    const at::Tensor error = (weights.to(at::kDouble) - expected).abs() * sure;
    ASSERT_LT(error.max().item<double>(), 1e-5) << "step " << step;
    ASSERT_GT(sure.to(at::kDouble).mean().item<double>(), 0.9999);
    expected = torch::where(sure, expected, weights.to(at::kDouble));
  }
}

TEST(Lion, StaysWhereThereIsNoGradient) {
  FlatOptimizer ours({.name = "lion"}, 3, {});
  const at::Tensor weights = torch::ones({3});
  ours.step(
      {.weights = weights, .gradients = torch::tensor({0.0F, -2.0F, 1e-9F}), .learning_rate = 0.5});
  EXPECT_TRUE(weights.equal(torch::tensor({1.0F, 1.5F, 0.5F})));
}

}  // namespace
}  // namespace trireme

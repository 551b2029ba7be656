// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One layer of a mixture of experts: what tokens choose, what they weigh, what is dropped.

#include "trireme/nn/mixture.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "tests/support/model_fixtures.h"
#include "tests/support/operation.h"
#include "trireme/base/random.h"

namespace trireme {
namespace {

using testing::normal;

nn::ModelConfig layer_config(nn::ExpertsConfig experts, const std::string& family = "llama") {
  nn::ModelConfig config = testing::small_model_config(family);
  config.experts = std::move(experts);
  config.resolve(0);
  return config;
}

// Parameters by their names, large enough that all of them matter.
void fill(torch::nn::Module& module, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  for (const auto& item : module.named_parameters()) {
    at::Tensor values = torch::empty(item.value().sizes(), at::kDouble);
    const RandomStream noise(3, item.key());
    auto* data = values.data_ptr<double>();
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      data[i] = 0.3 * noise.normal(static_cast<std::uint64_t>(i));
    }
    item.value().copy_(values);
  }
  module.to(dtype);
}

at::Tensor parameter(const torch::nn::Module& module, const std::string& name) {
  return module.named_parameters()[name];
}

double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// What a token's MLP with number e makes of its row.
at::Tensor expert_of(const nn::MixtureOfExperts& mixture, std::int64_t e, const at::Tensor& x_C) {
  const auto up = parameter(*mixture, "experts.up")[e],
             down = parameter(*mixture, "experts.down")[e];
  if (!mixture->named_parameters().contains("experts.gate")) {
    const auto before = up.mv(x_C) + parameter(*mixture, "experts.up_bias")[e];
    return down.mv(at::gelu(before, "tanh")) + parameter(*mixture, "experts.down_bias")[e];
  }
  return down.mv(at::silu(parameter(*mixture, "experts.gate")[e].mv(x_C)) * up.mv(x_C));
}

// Each token by itself, as the papers have it: scores, the k best of them with the bias, weights.
at::Tensor token_by_token(const nn::MixtureOfExperts& mixture, const nn::ExpertsConfig& e,
                          const at::Tensor& bias_E, const at::Tensor& x_NC) {
  std::vector<at::Tensor> rows;
  for (std::int64_t n = 0; n < x_NC.size(0); ++n) {
    const at::Tensor logits = parameter(*mixture, "router.weight").mv(x_NC[n]);
    const at::Tensor scores =
        e.score == "softmax" ? logits.exp() / logits.exp().sum() : 1 / (1 + (-logits).exp());
    const at::Tensor order =
        std::get<1>(at::sort(scores.detach() + bias_E, /*stable=*/true, 0, true));
    at::Tensor sum = torch::zeros_like(x_NC[n]), total = torch::zeros({}, at::kDouble);
    for (std::int64_t j = 0; j < e.top_k; ++j) {
      const auto expert = order[j].item<std::int64_t>();
      sum = sum + scores[expert] * expert_of(mixture, expert, x_NC[n]);
      total = total + scores[expert];
    }
    rows.push_back(e.scale * (e.normalize ? sum / total : sum));
  }
  return torch::stack(rows);
}

struct Style {
  nn::ExpertsConfig experts;
  std::string family = "llama";
};
std::vector<Style> styles() {
  return {
      {{.count = 5, .top_k = 2, .width = 20}},
      {{.count = 5, .top_k = 2, .width = 20}, "gpt2"},
      {{.count = 4, .top_k = 1, .width = 9, .normalize = false}},
      {{.count = 7, .top_k = 3, .width = 9, .score = "sigmoid", .scale = 2.5, .balance = "bias"}},
      {{.count = 3, .top_k = 3, .width = 9, .score = "sigmoid", .normalize = false}}};
}

TEST(Mixture, IsTheWeightedSumOfEachTokensExpertsWithItsGradients) {
  for (const Style& style : styles()) {
    const auto config = layer_config(style.experts, style.family);
    nn::MixtureOfExperts mixture(config);
    fill(*mixture, at::kDouble);
    const at::Tensor bias =
        config.experts.balance == "bias" ? normal({7}, 9) * 0.2 : torch::zeros({1}, at::kDouble);
    if (config.experts.balance == "bias") mixture->named_buffers()["router.bias"].copy_(bias);
    const auto x = normal({2, 13, 24}, 1).requires_grad_();
    const auto parameters = mixture->parameters();
    const at::Tensor cotangent = normal({2, 13, 24}, 2);
    const auto run = [&](const at::Tensor& y) {
      x.mutable_grad().reset();
      mixture->zero_grad();
      y.backward(cotangent);
      testing::Tensors gradients{x.grad().clone()};
      for (const auto& each : parameters) gradients.push_back(each.grad().clone());
      return gradients;
    };
    const auto actual_y = mixture->forward(x).y;
    const auto expected_y =
        token_by_token(mixture, config.experts, bias, x.view({26, 24})).view({2, 13, 24});
    EXPECT_LT(max_difference(actual_y, expected_y), 1e-12);
    const auto actual = run(actual_y), expected = run(expected_y);
    for (std::size_t i = 0; i < actual.size(); ++i) {
      EXPECT_GT(expected[i].abs().max().item<double>(), 1e-6) << i;
      EXPECT_LT(max_difference(actual[i], expected[i]), 1e-11) << i;
    }
  }
}

TEST(Mixture, F32AndBf16FollowF64) {
  for (const Style& style : styles()) {
    const auto config = layer_config(style.experts, style.family);
    for (const auto& precision : {testing::kF32, testing::kBf16}) {
      nn::MixtureOfExperts narrow(config), wide(config);
      fill(*narrow, at::kFloat);
      narrow->to(precision.dtype);
      wide->to(at::kDouble);
      for (const auto& item : wide->named_parameters()) {
        item.value().set_data(parameter(*narrow, item.key()).to(at::kDouble));
      }
      const auto x = normal({26, 24}, 1).to(precision.dtype);
      const auto actual = narrow->forward(x);
      EXPECT_EQ(actual.y.scalar_type(), precision.dtype);
      EXPECT_EQ(actual.routing.losses.scalar_type(), at::kFloat);
      // Scores are f32 and their order that of f64: the choice is the same.
      const auto expected = wide->forward(x.to(at::kDouble));
      EXPECT_TRUE(actual.routing.chosen_E.equal(expected.routing.chosen_E));
      testing::expect_close(actual.y, expected.y, precision.tolerance, "y");
      testing::expect_close(actual.routing.losses, expected.routing.losses, 1e-5, "losses");
    }
  }
}

TEST(Mixture, SharedExpertsAreAddedForEveryToken) {
  const auto config = layer_config({.count = 5, .top_k = 2, .width = 10, .shared = 3});
  nn::MixtureOfExperts mixture(config);
  fill(*mixture, at::kDouble);
  EXPECT_EQ(parameter(*mixture, "shared.up.weight").sizes(), at::IntArrayRef({30, 24}));
  const auto x = normal({11, 24}, 1);
  const auto gate = x.matmul(parameter(*mixture, "shared.gate.weight").t());
  const auto shared = (at::silu(gate) * x.matmul(parameter(*mixture, "shared.up.weight").t()))
                          .matmul(parameter(*mixture, "shared.down.weight").t());
  const auto alone = token_by_token(mixture, config.experts, torch::zeros({1}, at::kDouble), x);
  EXPECT_LT(max_difference(mixture->forward(x).y, alone + shared), 1e-12);
}

// Router rows that every token scores in the same order: all go to expert 0, then to 1.
TEST(Mixture, ACapacityDropsTheLastTokensOfAnExpert) {
  const auto config = layer_config({.count = 4, .top_k = 2, .width = 10, .capacity_factor = 0.75});
  nn::MixtureOfExperts mixture(config);
  fill(*mixture, at::kDouble);
  {
    const at::NoGradGuard no_grad;
    const auto router = parameter(*mixture, "router.weight");
    for (std::int64_t e = 0; e < 4; ++e) router[e].fill_(0.1 * static_cast<double>(4 - e));
  }
  const auto x = normal({10, 24}, 1).abs().requires_grad_();
  const auto output = mixture->forward(x);
  EXPECT_TRUE(output.routing.chosen_E.equal(torch::tensor({10, 10, 0, 0})));
  EXPECT_TRUE(output.routing.dropped_E.equal(torch::tensor({6, 6, 0, 0})));  // 10 x 2 / 4 x 0.75
  const auto expected = token_by_token(mixture, config.experts, torch::zeros({1}, at::kDouble), x);
  EXPECT_LT(max_difference(output.y.narrow(0, 0, 4), expected.narrow(0, 0, 4)), 1e-12);
  EXPECT_TRUE(output.y.narrow(0, 4, 6).eq(0).all().item<bool>());
  output.y.sum().backward();
  EXPECT_GT(x.grad().narrow(0, 0, 4).abs().min().item<double>(), 0);
  EXPECT_TRUE(x.grad().narrow(0, 4, 6).eq(0).all().item<bool>());
}

TEST(Router, TheBiasChangesTheChoiceAndNoWeight) {
  const auto config = layer_config(
      {.count = 5, .top_k = 2, .score = "sigmoid", .normalize = false, .balance = "bias"});
  nn::Router router(config);
  fill(*router, at::kFloat);
  const auto x = normal({29, 24}, 1).to(at::kFloat);
  const auto before = router->forward(x);
  router->bias()[3] = 10;
  const auto after = router->forward(x);
  EXPECT_TRUE(after.experts_Nk.select(1, 0).eq(3).all().item<bool>());
  EXPECT_FALSE(before.experts_Nk.select(1, 0).eq(3).all().item<bool>());
  const auto scores =
      torch::sigmoid(x.to(at::kDouble).matmul(parameter(*router, "weight").to(at::kDouble).t()));
  EXPECT_LT(max_difference(after.weights_Nk, scores.gather(1, after.experts_Nk)), 1e-6);
  // The second is the best of the others, as without the bias.
  const auto others = scores.index_fill(1, torch::tensor({3}), -1.0);
  EXPECT_TRUE(after.experts_Nk.select(1, 1).equal(others.argmax(1)));
}

TEST(Router, LossesAreTheirFormulas) {
  for (const std::string score : {"softmax", "sigmoid"}) {
    const auto config = layer_config({.count = 5, .top_k = 2, .score = score});
    nn::Router router(config);
    fill(*router, at::kDouble);
    const auto x = normal({17, 24}, 1).requires_grad_();
    const auto output = router->forward(x);
    const at::Tensor logits = x.detach().matmul(parameter(*router, "weight").t());
    double balance = 0, z = 0;
    for (std::int64_t e = 0; e < 5; ++e) {
      double fraction = 0, probability = 0;
      for (std::int64_t n = 0; n < 17; ++n) {
        double all = 0, own = 0;
        for (std::int64_t other = 0; other < 5; ++other) {
          const double logit = logits[n][other].item<double>();
          const double value = score == "softmax" ? std::exp(logit) : 1 / (1 + std::exp(-logit));
          all += value;
          if (other == e) own = value;
        }
        probability += own / all / 17;
        fraction += static_cast<double>(output.experts_Nk[n].eq(e).sum().item<std::int64_t>());
      }
      balance += 5 * fraction / (17 * 2) * probability;
    }
    for (std::int64_t n = 0; n < 17; ++n) {
      z += std::pow(std::log(logits[n].exp().sum().item<double>()), 2) / 17;
    }
    EXPECT_NEAR(output.balance_loss.item<double>(), balance, 1e-12);
    EXPECT_NEAR(output.z_loss.item<double>(), z, 1e-12);
    // Against central differences along a direction of the weight.
    (2 * output.balance_loss + 3 * output.z_loss).backward();
    const at::Tensor direction = normal({5, 24}, 8), weight = parameter(*router, "weight");
    const auto loss_at = [&](double step) {
      const at::NoGradGuard no_grad;
      weight.add_(direction, step);
      const auto moved = router->forward(x);
      weight.add_(direction, -step);
      return (2 * moved.balance_loss + 3 * moved.z_loss).item<double>();
    };
    EXPECT_NEAR((weight.grad() * direction).sum().item<double>(),
                (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, 1e-6);
  }
}

TEST(Router, TheBalanceLossIsOneWhereAllAreEqual) {
  const auto config = layer_config({.count = 4, .top_k = 2});
  nn::Router router(config);
  const at::NoGradGuard no_grad;
  parameter(*router, "weight").zero_();
  const auto output = router->forward(normal({12, 24}, 1).to(at::kFloat));
  EXPECT_FLOAT_EQ(output.balance_loss.item<float>(), 1.0F);  // shares are equal, whoever is chosen
  EXPECT_FLOAT_EQ(output.weights_Nk[3][1].item<float>(), 0.5F);
}

}  // namespace
}  // namespace trireme

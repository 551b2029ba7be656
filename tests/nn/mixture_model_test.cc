// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Models of experts: Mixtral's style and DeepSeek's, whole.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"
#include "trireme/base/random.h"
#include "trireme/nn/layer.h"
#include "trireme/nn/router_bias.h"
#include "trireme/ops/parameter_gradient.h"

namespace trireme {
namespace {

using testing::deepseek_config;
using testing::formula_tokens;
using ::testing::HasSubstr;
using testing::mixtral_config;
using testing::small_model_config;

// Weights large enough that every part of the model matters to the loss.
nn::Transformer model_of(const nn::ModelConfig& config, at::ScalarType dtype) {
  nn::Transformer model(config);
  nn::initialize(*model, 7);
  model->to(dtype);
  const at::NoGradGuard no_grad;
  for (const auto& item : model->named_parameters()) {
    at::Tensor values = torch::empty(item.value().sizes(), at::kDouble);
    const RandomStream noise(3, item.key());
    auto* data = values.data_ptr<double>();
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      data[i] = 0.25 * noise.normal(static_cast<std::uint64_t>(i));
    }
    item.value().add_(values);
  }
  return model;
}

std::vector<nn::ModelConfig> configs() {
  auto dropping = mixtral_config();
  dropping.experts.capacity_factor = 0.8;
  auto sparse = mixtral_config("gpt2");
  sparse.layers = 4;
  sparse.experts.every = 2;
  return {mixtral_config(), deepseek_config(), mixtral_config("gpt2"), dropping, sparse};
}

struct Batch {
  at::Tensor inputs = formula_tokens(3, 11, 37);
  at::Tensor targets = formula_tokens(3, 11, 37, 1);
};

std::map<std::string, at::Tensor> gradients(nn::Transformer& model) {
  std::map<std::string, at::Tensor> result;
  for (const auto& item : model->named_parameters())
    result[item.key()] = item.value().grad().clone();
  return result;
}

TEST(MixtureModel, GradientMatchesFiniteDifferences) {
  const Batch batch;
  constexpr double kStep = 1e-5, kTolerance = 2e-8;
  constexpr std::int64_t kProbes = 5;
  for (const nn::ModelConfig& config : configs()) {
    auto model = model_of(config, at::kDouble);
    // With gradients, so that all losses are in it.
    const auto loss = [&] { return model->loss(batch.inputs, batch.targets); };
    loss().backward();
    for (const auto& item : model->named_parameters()) {
      auto flat = item.value().detach().view({-1});
      const auto gradient = item.value().grad().view({-1});
      const bool matters = item.key().find("attn.k.bias") == std::string::npos;
      EXPECT_EQ(gradient.abs().max().item<double>() > 1e-6, matters) << item.key();
      for (std::int64_t probe = 0; probe < kProbes; ++probe) {
        const auto i = (probe * 97 + 5) % flat.numel();
        const double value = flat[i].item<double>();
        flat[i] = value + kStep;
        const double above = loss().item<double>();
        flat[i] = value - kStep;
        const double below = loss().item<double>();
        flat[i] = value;
        EXPECT_NEAR(gradient[i].item<double>(), (above - below) / (2.0 * kStep), kTolerance)
            << item.key() << " element " << i;
      }
    }
  }
}

// One expert that all tokens use, with the weight one: no bit differs.
TEST(MixtureModel, OneExpertIsTheDenseModel) {
  const Batch batch;
  for (const std::string family : {"gpt2", "llama"}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (const std::string score : {"softmax", "sigmoid"}) {
        const auto dense_config = small_model_config(family);
        auto config = dense_config;
        config.experts = {.count = 1, .top_k = 1, .score = score, .balance = "none"};
        config.resolve(0);
        auto dense = model_of(dense_config, dtype);
        auto mixture = model_of(config, dtype);
        const at::NoGradGuard no_grad;
        const auto dense_name = [](std::string name) {
          const auto at = name.find("experts.");
          if (at == std::string::npos) return name;
          name.erase(at, 8);
          if (name.ends_with("_bias")) return name.replace(name.size() - 5, 5, ".bias");
          return name + ".weight";
        };
        for (const auto& item : mixture->named_parameters()) {
          if (item.key().find("router") != std::string::npos) continue;
          const auto& from = dense->named_parameters()[dense_name(item.key())];
          item.value().copy_(from.view(item.value().sizes()));
        }
        const at::AutoGradMode with_graph(true);
        const auto expected = dense->loss(batch.inputs, batch.targets);
        const auto actual = mixture->loss(batch.inputs, batch.targets);
        EXPECT_TRUE(actual.equal(expected)) << family << ' ' << score;
        // Of one sigmoid over itself the gradient is 0 but for rounding.
        if (score == "sigmoid") continue;
        expected.backward();
        actual.backward();
        for (const auto& item : mixture->named_parameters()) {
          if (item.key().find("router") != std::string::npos) continue;
          const auto& other = dense->named_parameters()[dense_name(item.key())];
          EXPECT_TRUE(item.value().grad().view(other.sizes()).equal(other.grad())) << item.key();
        }
      }
    }
  }
}

TEST(MixtureModel, RecomputeChangesNoBitAndCountsOnce) {
  const Batch batch;
  for (const nn::ModelConfig& config : configs()) {
    auto model = model_of(config, at::kFloat);
    std::map<std::string, at::Tensor> expected;
    at::Tensor expected_loss;
    std::vector<nn::LayerRouting> expected_routing;
    for (const auto mode :
         {nn::Recompute::kNone, nn::Recompute::kActivations, nn::Recompute::kBlocks}) {
      model->set_recompute(mode);
      model->zero_grad();
      const at::Tensor loss = model->loss(batch.inputs, batch.targets);
      const auto routing = model->routing();
      loss.backward();
      EXPECT_EQ(static_cast<std::int64_t>(routing.size()),
                config.experts.num_layers(config.layers));
      if (mode == nn::Recompute::kNone) {
        expected = gradients(model);
        expected_loss = loss;
        expected_routing = routing;
        continue;
      }
      EXPECT_TRUE(loss.equal(expected_loss));
      for (const auto& [name, gradient] : gradients(model)) {
        EXPECT_TRUE(gradient.equal(expected.at(name))) << name;
      }
      for (std::size_t l = 0; l < routing.size(); ++l) {
        EXPECT_FALSE(routing[l].losses.requires_grad());
        EXPECT_TRUE(routing[l].losses.equal(expected_routing[l].losses));
        EXPECT_TRUE(routing[l].chosen_E.equal(expected_routing[l].chosen_E));
        EXPECT_TRUE(routing[l].dropped_E.equal(expected_routing[l].dropped_E));
        // The second run of a block, in the backward pass, has told nobody.
        EXPECT_TRUE(model->routing()[l].chosen_E.equal(routing[l].chosen_E));
        EXPECT_EQ(routing[l].chosen_E.sum().item<std::int64_t>(), 33 * config.experts.top_k);
      }
    }
  }
}

TEST(MixtureModel, TheLossIsTheSumOfItsParts) {
  const Batch batch;
  auto config = mixtral_config();
  config.experts.balance_coefficient = 0.07;
  auto model = model_of(config, at::kDouble);
  const double all = model->loss(batch.inputs, batch.targets).item<double>();
  at::Tensor means = torch::zeros({2}, at::kDouble);
  for (const auto& layer : model->routing()) means += layer.losses / 3;
  const at::NoGradGuard no_grad;
  const double alone = model->loss(batch.inputs, batch.targets).item<double>();
  const auto logits = model->forward(batch.inputs).view({33, 37});
  EXPECT_NEAR(alone, torch::cross_entropy_loss(logits, batch.targets.view({33})).item<double>(),
              1e-12);
  EXPECT_NEAR(all - alone, 0.07 * means[0].item<double>() + 0.003 * means[1].item<double>(), 1e-12);
  EXPECT_GT(means.min().item<double>(), 0.1);
}

TEST(MixtureModel, GradientsAddedInPlaceAreTheReturnedOnes) {
  const Batch batch;
  for (const nn::ModelConfig& config : configs()) {
    auto model = model_of(config, at::kFloat);
    model->loss(batch.inputs, batch.targets).backward();
    const auto expected = gradients(model);
    for (auto& each : model->parameters()) each.mutable_grad() = torch::zeros_like(each);
    const ops::DirectGradients direct;
    model->loss(batch.inputs, batch.targets).backward();
    for (const auto& [name, gradient] : gradients(model)) {
      EXPECT_TRUE(gradient.equal(expected.at(name))) << name;
    }
  }
}

TEST(MixtureModel, DecodingWithACacheEqualsForward) {
  for (const nn::ModelConfig& config : {mixtral_config(), deepseek_config("gpt2")}) {
    auto model = model_of(config, at::kDouble);
    const at::NoGradGuard no_grad;
    const auto tokens = formula_tokens(3, 11, 37);
    const auto expected = model->forward(tokens);
    nn::KvCache cache;
    std::int64_t done = 0;
    for (const std::int64_t chunk : {4, 1, 3, 1, 1, 1}) {
      const auto logits = model->decode(tokens.narrow(1, done, chunk), cache);
      done += chunk;
      EXPECT_LT((logits - expected.select(1, done - 1)).abs().max().item<double>(), 1e-5) << done;
    }
  }
}

// Every expert's first values are those of its place in the whole parameter.
TEST(MixtureModel, PartsOfExpertsBeginAsTheWholeDoes) {
  for (const std::string family : {"llama", "gpt2"}) {
    nn::Transformer whole(deepseek_config(family)), part(deepseek_config(family));
    for (nn::MixtureOfExpertsImpl* mixture : part->mixtures()) {
      for (const auto& name : mixture->experts().named_parameters().keys()) {
        mixture->experts().keep_part(name, {.dim = 0, .begin = 2, .size = 3, .whole = 7});
      }
    }
    nn::initialize(*whole, 5);
    nn::initialize(*part, 5);
    int cut = 0;
    for (const auto& item : part->named_parameters()) {
      const at::Tensor expected = whole->named_parameters()[item.key()];
      const bool is_cut = item.key().find(".experts.") != std::string::npos;
      cut += is_cut ? 1 : 0;
      EXPECT_TRUE(item.value().equal(is_cut ? expected.narrow(0, 2, 3) : expected)) << item.key();
    }
    EXPECT_EQ(cut, family == "llama" ? 6 : 8);
  }
}

TEST(MixtureModel, RolesSayWhatDecaysAndWhatIsAHiddenMatrix) {
  nn::Transformer model(deepseek_config("gpt2"));
  std::map<std::string, nn::ParameterRole> roles;
  for (const auto& each : nn::parameters_with_roles(*model)) roles[each.name] = each.role;
  using enum nn::ParameterRole;
  EXPECT_EQ(roles.at("blocks.1.mlp.router.weight"), kEmbedding);
  EXPECT_EQ(roles.at("blocks.1.mlp.experts.up"), kMatrix);
  EXPECT_EQ(roles.at("blocks.1.mlp.experts.down"), kResidualMatrix);
  EXPECT_EQ(roles.at("blocks.1.mlp.experts.up_bias"), kBias);
  EXPECT_EQ(roles.at("blocks.1.mlp.shared.down.weight"), kResidualMatrix);
  EXPECT_EQ(roles.at("blocks.0.mlp.down.weight"), kResidualMatrix);
}

// Plain gradient descent on one batch; the bias moves too.
TEST(MixtureModel, Trains) {
  const Batch batch;
  for (const nn::ModelConfig& config : configs()) {
    nn::Transformer model(config);
    nn::initialize(*model, 7);
    double first = 0, last = 0;
    for (int step = 0; step < 40; ++step) {
      model->zero_grad();
      const at::Tensor loss = model->loss(batch.inputs, batch.targets);
      loss.backward();
      const at::NoGradGuard no_grad;
      for (const auto& each : model->parameters()) each.sub_(each.grad() * 0.5);
      if (nn::has_router_bias(*model)) {
        const at::Tensor chosen = nn::no_choices(*model);
        nn::add_choices(*model, chosen);
        nn::update_router_bias(*model, chosen);
      }
      last = loss.item<double>();
      if (step == 0) first = last;
    }
    EXPECT_NEAR(first, std::log(37.0), 0.2);
    EXPECT_LT(last, first - 0.5);
  }
}

TEST(RouterBias, MovesTowardsThoseThatHadLess) {
  auto model = model_of(deepseek_config(), at::kFloat);
  EXPECT_TRUE(nn::has_router_bias(*model));
  EXPECT_FALSE(nn::has_router_bias(*model_of(mixtral_config(), at::kFloat)));
  // The mean of the second layer is no whole number.
  const auto chosen = torch::tensor({{4, 4, 4, 4, 4, 4, 4}, {10, 0, 3, 4, 5, 3, 4}}, at::kLong);
  nn::update_router_bias(*model, chosen);
  nn::update_router_bias(*model, chosen);
  const auto bias = [&](std::size_t layer) { return model->mixtures()[layer]->router().bias(); };
  EXPECT_TRUE(bias(0).eq(0).all().item<bool>());
  EXPECT_TRUE(bias(1).allclose(torch::tensor({-1, 1, 1, 1, -1, 1, 1}) * 0.02F, 0, 1e-7));
  EXPECT_THAT(testing::failure_of([&] { nn::update_router_bias(*model, chosen[0]); }),
              HasSubstr("ShapeError: choices of a model's experts are i64 [2, 7]; got Long [7]"));
}

TEST(RouterBias, CountsAddUpOverPasses) {
  auto model = model_of(deepseek_config(), at::kFloat);
  model->set_recompute(nn::Recompute::kBlocks);
  const at::Tensor chosen = nn::no_choices(*model);
  at::Tensor expected = torch::zeros({2, 7}, at::kLong);
  for (int m = 0; m < 3; ++m) {
    model->loss(formula_tokens(2, 9, 37, m), formula_tokens(2, 9, 37, m + 1)).backward();
    nn::add_choices(*model, chosen);
    for (int layer = 0; layer < 2; ++layer) expected[layer] += model->routing()[layer].chosen_E;
  }
  EXPECT_TRUE(chosen.equal(expected));
  EXPECT_TRUE(chosen.sum(1).eq(3 * 18 * 3).all().item<bool>());
}

}  // namespace
}  // namespace trireme

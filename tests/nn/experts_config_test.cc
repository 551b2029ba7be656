// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/experts_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"

namespace trireme {
namespace {

using testing::failure_of;
using ::testing::HasSubstr;
using testing::small_model_config;

TEST(ExpertsConfig, ComesFromTheFileAndGoesBack) {
  nn::ModelConfig config;
  bind_config(ConfigTree::parse("layers: 3\nvocab_size: 7\nexperts: {count: 5, top_k: 3, score: "
                                "sigmoid, balance: bias}\n",
                                "a.yaml", {"experts.width=40"}),
              config);
  config.resolve(0);
  EXPECT_EQ(config.experts,
            (nn::ExpertsConfig{
                .count = 5, .top_k = 3, .width = 40, .score = "sigmoid", .balance = "bias"}));
  nn::ModelConfig again;
  bind_config(ConfigTree::parse(config_to_yaml(config), "b.yaml", {}), again);
  EXPECT_EQ(again.experts, config.experts);
}

TEST(ExpertsConfig, AnExpertIsAsWideAsTheMlpUnlessSaid) {
  nn::ModelConfig config = small_model_config("llama");
  config.experts.count = 2;
  config.resolve(0);
  EXPECT_EQ(config.experts.width, config.mlp_width);
}

TEST(ExpertsConfig, LayersWithExperts) {
  const auto layers_of = [](std::int64_t first_dense, std::int64_t every) {
    const nn::ExpertsConfig experts{.count = 4, .first_dense = first_dense, .every = every};
    std::string layers;
    for (std::int64_t layer = 0; layer < 7; ++layer) {
      layers += experts.in_layer(layer) ? 'e' : 'd';
    }
    EXPECT_EQ(experts.num_layers(7), std::count(layers.begin(), layers.end(), 'e')) << layers;
    return layers;
  };
  EXPECT_EQ(layers_of(0, 1), "eeeeeee");
  EXPECT_EQ(layers_of(0, 2), "dededed");
  EXPECT_EQ(layers_of(2, 1), "ddeeeee");
  EXPECT_EQ(layers_of(1, 3), "dddedde");
  EXPECT_FALSE(nn::ExpertsConfig().in_layer(0));
  EXPECT_EQ(nn::ExpertsConfig().num_layers(7), 0);
}

TEST(ExpertsConfig, CapacityIsAShareOfTheChoices) {
  nn::ExpertsConfig experts{.count = 8, .top_k = 2};
  EXPECT_EQ(experts.capacity(100), 100);
  experts.capacity_factor = 1.0;
  EXPECT_EQ(experts.capacity(100), 25);
  EXPECT_EQ(experts.capacity(101), 26);  // 25.25
  experts.capacity_factor = 1.5;
  EXPECT_EQ(experts.capacity(1), 1);  // 0.375
  EXPECT_EQ(experts.capacity(100), 38);
  experts.capacity_factor = 50;
  EXPECT_EQ(experts.capacity(100), 100);
}

TEST(ExpertsConfig, RefusesEachBadValue) {
  const auto with = [](const std::function<void(nn::ExpertsConfig&)>& change) {
    nn::ModelConfig config = small_model_config("llama");
    config.experts.count = 6;
    change(config.experts);
    return failure_of([&] { config.resolve(0); });
  };
  EXPECT_EQ(with([](auto&) {}), "no error");
  EXPECT_THAT(with([](auto& e) { e.count = -1; }), HasSubstr("model.experts.count is -1"));
  EXPECT_THAT(with([](auto& e) { e.top_k = 0; }), HasSubstr("model.experts.top_k is 0"));
  EXPECT_THAT(with([](auto& e) { e.top_k = 7; }),
              HasSubstr("model.experts.top_k is 7, but there are 6 experts"));
  EXPECT_THAT(with([](auto& e) { e.width = -2; }), HasSubstr("model.experts.width is -2"));
  EXPECT_THAT(with([](auto& e) { e.shared = -1; }), HasSubstr("model.experts.shared is -1"));
  EXPECT_THAT(with([](auto& e) { e.first_dense = -1; }),
              HasSubstr("model.experts.first_dense is -1"));
  EXPECT_THAT(with([](auto& e) { e.every = 0; }), HasSubstr("model.experts.every is 0"));
  EXPECT_THAT(with([](auto& e) { e.first_dense = 1, e.every = 2; }),
              HasSubstr("first_dense 1 and model.experts.every 2 leave none of 2 layers"));
  EXPECT_THAT(with([](auto& e) { e.score = "tanh"; }), HasSubstr("model.experts.score is 'tanh'"));
  EXPECT_THAT(with([](auto& e) { e.balance = "luck"; }),
              HasSubstr("model.experts.balance is 'luck'"));
  EXPECT_THAT(with([](auto& e) { e.scale = 0; }), HasSubstr("model.experts.scale is 0"));
  EXPECT_THAT(with([](auto& e) { e.capacity_factor = -1; }),
              HasSubstr("model.experts.capacity_factor is -1"));
  EXPECT_THAT(with([](auto& e) { e.balance_coefficient = -1; }),
              HasSubstr("model.experts.balance_coefficient is -1"));
  EXPECT_THAT(with([](auto& e) { e.bias_speed = 0; }), HasSubstr("model.experts.bias_speed is 0"));
  EXPECT_THAT(with([](auto& e) { e.z_coefficient = -0.5; }),
              HasSubstr("model.experts.z_coefficient is -0.5"));
  EXPECT_THAT(with([](auto& e) { e.count = 0, e.shared = 1; }),
              HasSubstr("model.experts.count is 0, a dense model, but other settings"));
}

TEST(ExpertsConfig, CountsTheModelsParameters) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (auto config : {testing::mixtral_config(family), testing::deepseek_config(family)}) {
      std::int64_t elements = 0;
      for (const auto& parameter : nn::TransformerImpl(config).parameters()) {
        elements += parameter.numel();
      }
      EXPECT_EQ(config.num_parameters(), elements) << family << " of " << config.experts.count;
    }
  }
}

// Only what a token uses, written out: attention, three layers' MLPs, head, attention's products.
TEST(ExpertsConfig, CountsTheOperationsOfATokensExperts) {
  const double attention = 3 * (2 * 24 * 24 + 2 * 24 * 12), head = 37 * 24, seen = 3 * 24 * 11;
  EXPECT_DOUBLE_EQ(testing::mixtral_config().flops_per_token(),
                   6 * (attention + 3 * (5 * 24 + 2 * 3 * 24 * 20) + head + seen));
  EXPECT_DOUBLE_EQ(
      testing::deepseek_config().flops_per_token(),
      6 * (attention + 3 * 24 * 40 + 2 * (7 * 24 + (3 + 2) * 3 * 24 * 12) + head + seen));
}

}  // namespace
}  // namespace trireme

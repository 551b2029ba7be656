// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/model_fixtures.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

nn::ModelConfig config_of(const std::string& family, std::int64_t width, std::int64_t heads) {
  nn::ModelConfig config;
  config.family = family;
  config.width = width;
  config.heads = heads;
  return config;
}

std::string refusal(nn::ModelConfig config, std::int64_t tokenizer_vocab_size = 300) {
  try {
    config.resolve(tokenizer_vocab_size);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "not refused";
}

TEST(ModelConfig, FillsWhatTheFamilyDecides) {
  auto gpt2 = config_of("gpt2", 96, 6);
  gpt2.resolve(300);
  EXPECT_EQ(gpt2.kv_heads, 6);
  EXPECT_EQ(gpt2.mlp_width, 384);
  EXPECT_EQ(gpt2.vocab_size, 300);
  EXPECT_TRUE(gpt2.tied());
  auto llama = config_of("llama", 96, 6);
  llama.kv_heads = 3;
  llama.resolve(300);
  EXPECT_EQ(llama.kv_heads, 3);
  EXPECT_EQ(llama.mlp_width, 256);
  EXPECT_FALSE(llama.tied());
  auto rounded = config_of("llama", 100, 5);
  rounded.resolve(300);
  EXPECT_EQ(rounded.mlp_width, 288);  // 8/3 x 100 = 266.7, up to a multiple of 32
}

TEST(ModelConfig, ResolvingTwiceChangesNothing) {
  auto config = config_of("llama", 96, 6);
  config.resolve(300);
  const auto parameters = config.num_parameters();
  config.resolve(300);
  EXPECT_EQ(config.num_parameters(), parameters);
}

TEST(ModelConfig, KeepsWhatIsSet) {
  auto config = config_of("gpt2", 96, 6);
  config.mlp_width = 7;
  config.vocab_size = 512;
  config.tie_head = "no";
  config.resolve(300);
  EXPECT_EQ(config.mlp_width, 7);
  EXPECT_EQ(config.vocab_size, 512);
  EXPECT_FALSE(config.tied());
}

TEST(ModelConfig, RefusalsNameTheNumbersAndWhatFits) {
  EXPECT_THAT(refusal(config_of("gpt2", 100, 6)),
              HasSubstr("model.width 100 is not divisible by model.heads 6; heads that fit: 1, 2, "
                        "4, 5, 10, 20, 25, 50, 100"));
  auto grouped = config_of("llama", 96, 6);
  grouped.kv_heads = 4;
  EXPECT_THAT(refusal(grouped), HasSubstr("model.heads 6 is not divisible by model.kv_heads 4; "
                                          "kv_heads that fit: 1, 2, 3, 6"));
  EXPECT_THAT(refusal(config_of("llama", 30, 6)), HasSubstr("heads of 5 elements"));
  auto vocabulary = config_of("gpt2", 96, 6);
  vocabulary.vocab_size = 299;
  EXPECT_THAT(refusal(vocabulary),
              HasSubstr("model.vocab_size 299 is below the tokenizer's 300 tokens"));
  EXPECT_THAT(refusal(config_of("gpt2", 96, 6), 0), HasSubstr("model.vocab_size is 0"));
}

TEST(ModelConfig, RefusesEachBadValue) {
  const auto with = [](const std::function<void(nn::ModelConfig&)>& change) {
    auto config = config_of("gpt2", 96, 6);
    change(config);
    return refusal(config);
  };
  EXPECT_THAT(with([](auto& c) { c.layers = 0; }), HasSubstr("model.layers is 0"));
  EXPECT_THAT(with([](auto& c) { c.width = -4; }), HasSubstr("model.width is -4"));
  EXPECT_THAT(with([](auto& c) { c.heads = 0; }), HasSubstr("model.heads is 0"));
  EXPECT_THAT(with([](auto& c) { c.kv_heads = -1; }), HasSubstr("model.kv_heads is -1"));
  EXPECT_THAT(with([](auto& c) { c.mlp_width = -8; }), HasSubstr("model.mlp_width is -8"));
  EXPECT_THAT(with([](auto& c) { c.context = 0; }), HasSubstr("model.context is 0"));
  EXPECT_THAT(with([](auto& c) { c.attention_window = -1; }),
              HasSubstr("model.attention_window is -1"));
  EXPECT_THAT(with([](auto& c) { c.norm_epsilon = 0.0; }), HasSubstr("model.norm_epsilon is 0"));
  EXPECT_THAT(with([](auto& c) { c.rope_theta = 1.0; }), HasSubstr("model.rope_theta is 1"));
  EXPECT_THAT(with([](auto& c) { c.family = "gpt3"; }), HasSubstr("model.family is 'gpt3'"));
  EXPECT_THAT(with([](auto& c) { c.tie_head = "maybe"; }), HasSubstr("model.tie_head is 'maybe'"));
}

TEST(ModelConfig, CountsTheModelsParameters) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const std::string tie : {"yes", "no"}) {
      auto config = testing::small_model_config(family);
      config.tie_head = tie;
      std::int64_t elements = 0;
      for (const auto& parameter : nn::TransformerImpl(config).parameters()) {
        elements += parameter.numel();
      }
      EXPECT_EQ(config.num_parameters(), elements) << family << ", tied: " << tie;
    }
  }
}

// GPT-2 124M: 124 439 808 parameters as published; FLOPs by hand.
TEST(ModelConfig, CountsGpt2Small) {
  auto config = config_of("gpt2", 768, 12);
  config.layers = 12;
  config.context = 1024;
  config.resolve(50257);
  EXPECT_EQ(config.num_parameters(), 124439808);
  const double matrices = 12.0 * 12.0 * 768 * 768 + 50257.0 * 768;
  EXPECT_DOUBLE_EQ(config.flops_per_token(), 6.0 * matrices + 6.0 * 12 * 768 * 1024);
}

// Of 1024 tokens, the first 256 see half of 256 on average, the others 256: as in the count of all
// pairs, without the half token of the diagonal.
TEST(ModelConfig, AWindowCostsWhatItSees) {
  auto config = config_of("gpt2", 768, 12);
  config.layers = 12;
  config.context = 1024;
  config.resolve(50257);
  const double all = config.flops_per_token();
  config.attention_window = 256;
  const double seen = (256.0 * 128 + 768.0 * 256) / 1024;
  EXPECT_DOUBLE_EQ(all - config.flops_per_token(), 12.0 * 12 * 768 * (512 - seen));
  for (const std::int64_t window : {1024, 5000}) {
    config.attention_window = window;
    EXPECT_DOUBLE_EQ(config.flops_per_token(), all);
  }
}

// As a checkpoint's model.yaml has it; an older one has no word of windows.
TEST(ModelConfig, AWindowIsWrittenAndMayBeMissing) {
  auto config = config_of("gpt2", 96, 6);
  config.attention_window = 48;
  const std::string yaml = config_to_yaml(config);
  EXPECT_THAT(yaml, HasSubstr("attention_window: 48"));
  nn::ModelConfig read;
  bind_config(ConfigTree::parse(yaml, "model.yaml", {}), read);
  EXPECT_EQ(read.attention_window, 48);
  nn::ModelConfig old;
  bind_config(ConfigTree::parse("family: gpt2\nwidth: 96\nheads: 6\n", "model.yaml", {}), old);
  old.resolve(300);
  EXPECT_EQ(old.attention_window, 0);
}

TEST(ModelConfig, GroupedQueriesCostLess) {
  auto config = config_of("llama", 96, 6);
  config.resolve(300);
  const double all_heads = config.flops_per_token();
  config.kv_heads = 2;
  EXPECT_DOUBLE_EQ(all_heads - config.flops_per_token(), 6.0 * 4 * 2.0 * 96 * 64);
}

}  // namespace
}  // namespace trireme

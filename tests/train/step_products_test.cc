// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/step_products.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/train/bench/known_models.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> shapes(const std::vector<MatrixProduct>& products) {
  std::vector<std::string> all;
  all.reserve(products.size());
  for (const MatrixProduct& product : products) all.push_back(product.shape());
  return all;
}

// Two countings of the same, from parameters and from products: must agree to the last operation.
TEST(StepProducts, FlopsAreThoseOfTheModelConfig) {
  for (const std::string& name : known_model_names()) {
    for (const std::int64_t tokens : {1, 7, 256}) {
      const nn::ModelConfig config = known_model(name, tokens);
      EXPECT_EQ(total_flops(step_products(config, 3, tokens)),
                3 * static_cast<double>(tokens) * config.flops_per_token())
          << name << ", " << tokens << " tokens";
    }
  }
  nn::ModelConfig grouped{.family = "llama",
                          .layers = 3,
                          .width = 48,
                          .heads = 6,
                          .kv_heads = 2,
                          .mlp_width = 136,
                          .context = 11,
                          .vocab_size = 211};
  grouped.resolve(0);
  EXPECT_EQ(total_flops(step_products(grouped, 5, 11)), 55 * grouped.flops_per_token());
}

TEST(StepProducts, ALinearLayerIsThree) {
  EXPECT_THAT(shapes(linear_products(5, 2, 3)),
              ElementsAre("[5, 2] x [3, 2]^T", "[5, 3] x [3, 2]", "[5, 3]^T x [5, 2]"));
  for (const MatrixProduct& product : linear_products(5, 2, 3)) {
    EXPECT_EQ(product.flops(), 60) << product.shape();
    EXPECT_EQ(product.needed_flops(), 60) << product.shape();
  }
}

TEST(StepProducts, AttentionStacksTheQueriesOfAGroup) {
  const auto products =
      attention_products({.batch = 2, .tokens = 5, .heads = 6, .kv_heads = 3, .head_width = 7});
  EXPECT_THAT(shapes(products), ElementsAre("6 x [10, 7] x [5, 7]^T", "6 x [10, 5] x [5, 7]",
                                            "6 x [10, 7] x [5, 7]^T", "6 x [10, 5] x [5, 7]",
                                            "6 x [10, 5]^T x [10, 7]"));
  // 6 products of 2 x 5 x 5 x 7 for each of 2 sequences and 6 heads, half of it masked.
  EXPECT_EQ(total_flops(products), 6 * 350 * 12 / 2);
}

TEST(StepProducts, GptTwoHasFewDistinctShapes) {
  const auto products = step_products(known_model("gpt2-124m", 256), 4, 256);
  const auto find = [&](const std::string& shape) {
    return std::find_if(products.begin(), products.end(),
                        [&](const MatrixProduct& p) { return p.shape() == shape; });
  };
  EXPECT_EQ(products.size(), 17U);
  ASSERT_NE(find("[1024, 768] x [768, 768]^T"), products.end());
  EXPECT_EQ(find("[1024, 768] x [768, 768]^T")->count, 48);  // q, k, v, out in 12 blocks
  ASSERT_NE(find("[1024, 50257]^T x [1024, 768]"), products.end());
  EXPECT_EQ(find("[1024, 50257]^T x [1024, 768]")->count, 1);
}

TEST(KnownModels, AreTheSizesTheyAreNamedFor) {
  EXPECT_EQ(known_model("gpt2-124m", 1024).num_parameters(), 124439808);
  EXPECT_EQ(known_model("gpt2-350m", 1024).num_parameters(), 354823168);
  EXPECT_EQ(known_model("llama-160m", 2048).num_parameters(), 162417408);
  EXPECT_EQ(known_model("tiny", 64).context, 64);
}

TEST(KnownModels, AnUnknownNameIsRefusedWithTheKnownOnes) {
  try {
    known_model("gpt5", 64);
    FAIL() << "not refused";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("'gpt5'"));
    EXPECT_THAT(error.what(),
                HasSubstr("gpt2-124m, gpt2-350m, llama-160m, llama-160m-8x2, tiny, tiny-llama"));
  }
}

}  // namespace
}  // namespace trireme

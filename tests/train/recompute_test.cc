// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// compute.recompute changes what a step keeps, and no bit of what it gives.

#include <gtest/gtest.h>
#include <torch/types.h>

#include <string>
#include <tuple>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/training_steps.h"

namespace trireme {
namespace {

using testing::TrainingSteps;

const std::vector<std::string> kModes = {"none", "activations", "blocks"};

// Family and dtype.
class Recompute : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  static TrainConfig config(const std::string& mode) {
    TrainConfig config;
    config.model = testing::small_model_config(std::get<0>(GetParam()));
    config.model.layers = 4;
    config.model.context = 70;  // an odd size for vectors and blocks
    config.train.dtype = std::get<1>(GetParam());
    config.train.steps = 3;
    config.batch = {.micro_batch_size = 3, .micro_batches = 2};
    config.compute.recompute = mode;
    return config;
  }
};

INSTANTIATE_TEST_SUITE_P(Models, Recompute,
                         ::testing::Combine(::testing::Values("gpt2", "llama"),
                                            ::testing::Values("f32", "bf16")),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param);
                         });

TEST_P(Recompute, ChangesNoBitAndTakesLessMemory) {
  constexpr int kThreads = 1;
  const TrainingSteps plain = testing::run_training_steps(config("none"), kThreads);
  ASSERT_EQ(plain.losses.size(), 3U);
  EXPECT_NE(plain.losses[0], plain.losses[2]);
  std::int64_t before = plain.at_peak[MemoryCategory::kActivations];
  for (const std::string mode : {"activations", "blocks"}) {
    const TrainingSteps steps = testing::run_training_steps(config(mode), kThreads);
    EXPECT_EQ(steps.losses, plain.losses) << mode;
    EXPECT_TRUE(steps.weights.equal(plain.weights)) << mode;
    const std::int64_t activations = steps.at_peak[MemoryCategory::kActivations];
    EXPECT_LT(activations, before - before / 20) << mode;
    before = activations;
  }
}

// What is not trained is not checkpointed: no gradients, or a cache.
TEST_P(Recompute, LeavesInferenceAlone) {
  nn::Transformer model(config("blocks").model);
  nn::initialize(*model, 5);
  const auto tokens = testing::formula_tokens(2, 9, 37);
  const at::NoGradGuard no_grad;
  const at::Tensor logits = model->forward(tokens);
  nn::KvCache plain, cache;
  const at::Tensor decoded = model->decode(tokens, plain);
  model->set_recompute(nn::Recompute::kBlocks);
  EXPECT_TRUE(model->forward(tokens).equal(logits));
  const at::AutoGradMode with_gradients(true);
  EXPECT_TRUE(model->decode(tokens, cache).equal(decoded));
  EXPECT_EQ(cache.keys.size(), 4U);
}

}  // namespace
}  // namespace trireme

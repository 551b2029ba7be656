// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The estimate, made from shapes, against the ledger of steps that ran.

#include "trireme/train/memory_estimate.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/training_steps.h"
#include "trireme/base/error.h"
#include "trireme/parallel/shard/shard_plan.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

constexpr double kMiB = 1 << 20;
constexpr int kThreads = 1;  // with more, it is chance which of them need scratch memory

// small has little but parameters; deep is mostly activations; wide_vocabulary mostly the loss.
nn::ModelConfig model(const std::string& family, const std::string& size) {
  nn::ModelConfig config;
  config.family = family;
  config.layers = size == "deep" ? 6 : 2;
  config.width = size == "deep" ? 96 : size == "small" ? 192 : 120;
  config.heads = 6;
  config.kv_heads = family == "llama" ? 2 : 0;
  config.context = size == "deep" ? 130 : 96;
  config.vocab_size = size == "wide_vocabulary" ? 8009 : 1003;
  config.resolve(0);
  return config;
}

// Family, size, dtype.
class MemoryEstimate
    : public ::testing::TestWithParam<std::tuple<std::string, std::string, std::string>> {
 protected:
  static TrainConfig config() {
    TrainConfig config;
    config.model = model(std::get<0>(GetParam()), std::get<1>(GetParam()));
    config.train.dtype = std::get<2>(GetParam());
    config.train.steps = 2;
    config.batch.micro_batch_size = std::get<1>(GetParam()) == "deep" ? 8 : 4;
    return config;
  }

  static void expect_near(const TrainConfig& config, const std::string& what) {
    const MemorySplit estimate = estimate_memory(config, {.threads = kThreads});
    const MemorySplit measured = testing::run_training_steps(config, kThreads).at_peak;
    const auto total = static_cast<double>(measured.total());
    const double error = static_cast<double>(estimate.total()) / total - 1;
    std::string line =
        fmt::format("{:<18} {:6.1f} MiB {:+6.2f} %", what, total / kMiB, 100 * error);
    EXPECT_LE(std::abs(error), 0.05) << what;
    for (const MemoryCategory category : kMemoryCategories) {
      const auto expected = static_cast<double>(estimate[category]);
      const auto found = static_cast<double>(measured[category]);
      line += fmt::format("  {} {:.2f} of {:.2f}", memory_category_name(category), expected / kMiB,
                          found / kMiB);
      EXPECT_NEAR(expected, found, std::max(0.1 * found, kMiB))
          << what << ", " << memory_category_name(category);
    }
    std::printf("%s\n", line.c_str());
  }
};

INSTANTIATE_TEST_SUITE_P(Models, MemoryEstimate,
                         ::testing::Combine(::testing::Values("gpt2", "llama"),
                                            ::testing::Values("small", "deep", "wide_vocabulary"),
                                            ::testing::Values("f32", "bf16")),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param) + "_" +
                                  std::get<2>(test.param);
                         });

TEST_P(MemoryEstimate, IsNearTheLedger) {
  for (const std::string mode : {"none", "activations", "blocks"}) {
    for (const std::int64_t micro_batches : {1, 4}) {
      if (micro_batches == 4 && std::get<1>(GetParam()) != "small") continue;  // slow
      TrainConfig with = config();
      with.compute.recompute = mode;
      with.batch.micro_batches = micro_batches;
      expect_near(with, fmt::format("{} x {}", mode, micro_batches));
    }
  }
}

TEST_P(MemoryEstimate, IsNearTheLedgerWithExperts) {
  for (const std::string mode : {"none", "activations", "blocks"}) {
    if (std::get<1>(GetParam()) == "wide_vocabulary") continue;  // of the loss, as without experts
    TrainConfig with = config();
    with.compute.recompute = mode;
    with.batch.micro_batches = 1;
    with.model.experts = {.count = 6, .top_k = 2, .shared = 1};
    with.model.experts.first_dense = with.model.layers / 2;
    with.model.experts.width = with.model.mlp_width / 2;
    with.model.resolve(0);
    expect_near(with, fmt::format("experts {}", mode));
  }
}

TEST(MemoryEstimateOf, GradientsOfEveryPlan) {
  TrainConfig config;
  config.model = testing::small_model_config("gpt2");
  config.train.steps = 2;
  config.batch.micro_batch_size = 1;
  for (const std::int64_t micro_batches : {1, 2, 3, 4, 6, 7, 8, 13}) {
    config.batch.micro_batches = micro_batches;
    const testing::TrainingSteps steps = testing::run_training_steps(config, 1);
    const MemorySplit estimate = estimate_memory(config, {});
    EXPECT_EQ(estimate[MemoryCategory::kWeights], 4 * steps.flat_elements);
    EXPECT_EQ(estimate[MemoryCategory::kGradients], steps.at_peak[MemoryCategory::kGradients])
        << micro_batches;
  }
}

TEST(MemoryEstimateOf, AnAverageOfTheWeights) {
  TrainConfig config;
  config.model = testing::small_model_config("gpt2");
  config.train.steps = 2;
  config.train.average_decay = 0.9;
  const testing::TrainingSteps steps = testing::run_training_steps(config, 1);
  EXPECT_EQ(estimate_memory(config, {})[MemoryCategory::kOptimizer], 12 * steps.flat_elements);
  EXPECT_EQ(steps.at_peak[MemoryCategory::kOptimizer], 12 * steps.flat_elements);
  config.parallel.shard = 1;
  EXPECT_EQ(estimate_memory(config, {.ranks = 4})[MemoryCategory::kOptimizer],
            12 * steps.flat_elements / 4);
}

TEST(MemoryEstimateOf, ThreadsShareTheProducts) {
  TrainConfig config;
  config.model = model("llama", "small");
  config.train.steps = 2;
  constexpr int kMany = 2;
  const auto workspace = [&](int threads) {
    return static_cast<double>(
        estimate_memory(config, {.threads = threads})[MemoryCategory::kWorkspace]);
  };
  EXPECT_GT(workspace(kMany), workspace(1));
  EXPECT_LT(workspace(kMany), kMany * workspace(1));
  // The blocking may cut either side of a product for them: a MiB of each.
  const MemorySplit measured = testing::run_training_steps(config, kMany).at_peak;
  EXPECT_LE(static_cast<double>(measured[MemoryCategory::kWorkspace]),
            workspace(kMany) + kMany * kMiB);
}

TEST(MemoryEstimateOf, RanksShareTheMicroBatches) {
  TrainConfig config;
  config.model = testing::small_model_config("llama");
  config.batch.micro_batches = 16;
  const auto gradients = [&](int ranks) {
    return estimate_memory(config, {.ranks = ranks})[MemoryCategory::kGradients];
  };
  EXPECT_GT(gradients(1), gradients(4));
  EXPECT_GT(gradients(4), gradients(16));
}

TEST(MemoryEstimateOf, RanksOfACopyShareTheModel) {
  TrainConfig config;
  config.model = testing::small_model_config("gpt2");
  config.batch.micro_batches = 8;
  config.parallel.shard = 3;
  const MemorySplit two = estimate_memory(config, {.ranks = 2});
  const MemorySplit eight = estimate_memory(config, {.ranks = 8});
  config.parallel.shard_ranks = 2;
  const MemorySplit copies = estimate_memory(config, {.ranks = 8});
  for (const auto category : {MemoryCategory::kWeights, MemoryCategory::kOptimizer}) {
    EXPECT_EQ(copies[category], two[category]);
    EXPECT_EQ(copies[category], 4 * eight[category]);
  }
  EXPECT_EQ(copies[MemoryCategory::kGradients], 4 * eight[MemoryCategory::kGradients])
      << "a micro-batch for each rank";
  config.parallel.shard_ranks = kHostRanks;
  const MemorySplit host = estimate_memory(config, {.ranks = 8, .local_ranks = 2});
  EXPECT_EQ(host[MemoryCategory::kWeights], two[MemoryCategory::kWeights]);
}

TEST(MemoryEstimateOf, RefusalsTellTheNumbersAndWhatIsLess) {
  TrainConfig config;
  config.model = model("gpt2", "deep");
  const JobShape job{.ranks = 2, .threads = 2, .local_ranks = 2};
  const std::int64_t bytes = 2 * estimate_memory(config, job).total();
  check_memory(config, job, bytes);
  check_memory(config, job, 0);
  try {
    check_memory(config, job, bytes - 1);
    FAIL();
  } catch (const ConfigError& error) {
    for (const char* word : {"a worker needs about", "MB (weights", "the 2 on this host",
                             "compute.recompute=blocks (", "batch.micro_batch_size=1 ("}) {
      EXPECT_THAT(error.what(), HasSubstr(word));
    }
  }
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Training steps of models whose matrices are cut: what stops them, and what memory they take.

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <string>

#include "tests/support/ranks.h"
#include "tests/support/training_steps.h"
#include "trireme/train/memory_estimate.h"

namespace trireme {
namespace {

using testing::run_threads;

TrainConfig deep_config(const std::string& family, const std::string& dtype) {
  TrainConfig config;
  config.model.family = family;
  config.model.layers = 6;
  config.model.width = 96;
  config.model.heads = 6;
  config.model.kv_heads = family == "llama" ? 2 : 0;
  config.model.context = 128;
  config.model.vocab_size = 1003;
  config.model.resolve(0);
  config.train.dtype = dtype;
  config.train.steps = 2;
  config.batch.micro_batch_size = 8;
  config.batch.micro_batches = 1;
  return config;
}

TEST(TensorSteps, ASignalToOneRankStopsAll) {
  TrainConfig config = deep_config("gpt2", "f32");
  config.model.layers = 1;
  config.parallel.tp = 2;
  config.batch.micro_batches = 2;
  run_threads(4, [&](Group& world) {
    const testing::TemporaryFolder folder;
    const TokenShards shards =
        testing::random_shards(folder.path().string(), config.model.vocab_size);
    ModelState state(config, world, 7);
    TrainStep step(config, shards, state);
    EXPECT_FALSE(step.run(0, false).stop);
    const StepStats stats = step.run(1, world.rank() == 3);
    EXPECT_TRUE(stats.stop) << "rank " << world.rank();
    EXPECT_NEAR(stats.loss, std::log(1003.0), 0.5);
  });
}

// Of a rank, of the peak of all together: they meet twice in every block, but on a loaded machine
// one may be a little past its peak when the other comes to it.
MemorySplit measure(const TrainConfig& config) {
  install_caching_allocator();
  const auto tp = static_cast<int>(config.parallel.tp);
  const MemorySplit before = process_memory().report().current;
  process_memory().reset_peak();
  run_threads(tp, [&](Group& world) {
    at::set_num_threads(1);
    const testing::TemporaryFolder folder;
    const TokenShards shards =
        testing::random_shards(folder.path().string(), config.model.vocab_size);
    ModelState state(config, world, 7);
    TrainStep step(config, shards, state);
    for (std::int64_t i = 0; i < config.train.steps; ++i) step.run(i, false);
  });
  MemorySplit split = testing::difference(process_memory().report().at_peak, before);
  for (const MemoryCategory category : kMemoryCategories) split[category] /= tp;
  return split;
}

void expect_about(std::int64_t bytes, double expected, const std::string& what) {
  EXPECT_LE(static_cast<double>(bytes), 1.1 * expected) << what;
  EXPECT_GE(static_cast<double>(bytes), 0.8 * expected) << what;
}

// The estimate within a tenth, a fifth below it, and weights and activations a tp-th of one rank's:
// activations but for what is gathered for one matrix at a time, two streams of some 90.
TEST(TensorSteps, MemoryIsDividedAsEstimated) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const std::string dtype : {"f32", "bf16"}) {
      TrainConfig config = deep_config(family, dtype);
      const MemorySplit whole = estimate_memory(config, {});
      for (const bool sequence : {false, true}) {
        for (const std::string recompute : {"none", "activations", "blocks"}) {
          config.parallel.tp = 2;
          config.parallel.sequence = sequence;
          config.compute.recompute = recompute;
          const MemorySplit estimate = estimate_memory(config, {.ranks = 2});
          const MemorySplit measured = measure(config);
          const std::string what = fmt::format(
              "{} {} {}{}: estimated {}, measured {}", family, dtype, recompute,
              sequence ? " sequence" : "", describe_memory(estimate), describe_memory(measured));
          for (const MemoryCategory category :
               {MemoryCategory::kWeights, MemoryCategory::kOptimizer,
                MemoryCategory::kActivations}) {
            expect_about(measured[category], static_cast<double>(estimate[category]), what);
          }
          const auto half = [&](MemoryCategory category) {
            return static_cast<double>(whole[category]) / 2;
          };
          expect_about(measured[MemoryCategory::kWeights], half(MemoryCategory::kWeights), what);
          if (sequence && recompute == "none") {
            expect_about(measured[MemoryCategory::kActivations], half(MemoryCategory::kActivations),
                         what);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace trireme

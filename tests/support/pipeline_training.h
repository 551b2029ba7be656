// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Runs of a small model by ModelState and TrainStep, on any mesh of ranks that are threads, and
// what they leave behind.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/training_steps.h"
#include "trireme/checkpoint/checkpoint.h"
#include "trireme/train/model_state.h"
#include "trireme/train/train_step.h"

namespace trireme::testing {

// Of each step the loss and the norm, and a checkpoint's tensors at the end, by file and name.
struct TrainedModel {
  std::vector<double> losses, norms;
  double evaluation = 0;
  std::map<std::string, at::Tensor> tensors;
};

// 4 layers, whatever the family; "experts": dense, then experts with biases and z-loss.
inline TrainConfig pipeline_config(const std::string& family, const std::string& tied = "yes") {
  TrainConfig config;
  config.out = "out";
  if (family == "experts") {
    config.model = deepseek_config();
    config.model.experts.z_coefficient = 0.003;
  } else {
    config.model = small_model_config(family);
  }
  config.model.layers = 4;
  config.model.tie_head = tied;
  config.model.resolve(0);
  config.batch = {.micro_batch_size = 3, .micro_batches = 8};
  config.train.steps = 20;
  config.schedule = {.learning_rate = 0.01, .decay = "constant", .warmup_steps = 0};
  config.optimizer.weight_decay = 0.1;
  return config;
}

inline void add_tensors(const Checkpoint& checkpoint, const std::string& file,
                        std::map<std::string, at::Tensor>& tensors) {
  const SafetensorsFile read = checkpoint.tensors(file);
  for (const auto& [name, view] : read.tensors()) {
    tensors[file + ":" + name] =
        torch::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape,  // NOLINT
                         at::kFloat)
            .clone();
  }
}

// On the ranks of a group; what rank 0 returns is whole. from: a checkpoint to go on from.
inline TrainedModel train_model(const TrainConfig& config, Group& world, const std::string& folder,
                                const std::string& from = {}) {
  const std::string tokens = fmt::format("{}/tokens-{}", folder, world.rank());
  std::filesystem::create_directories(tokens);
  const TokenShards shards = random_shards(tokens, config.model.vocab_size);
  ModelState state(config, world, from.empty() ? std::optional<std::uint64_t>(7) : std::nullopt);
  if (!from.empty()) state.load(Checkpoint::open(from), true);
  // Any token will do.
  const std::optional<TokenId> separator =
      config.model.separate_documents ? std::optional<TokenId>(5) : std::nullopt;
  TrainStep train_step(config, shards, state, separator);
  TrainedModel result;
  for (std::int64_t step = 0; step < config.train.steps; ++step) {
    const StepStats stats = train_step.run(step, false);
    result.losses.push_back(stats.loss);
    result.norms.push_back(stats.gradient_norm);
  }
  const Evaluator evaluator(
      shards, config.model.context,
      {.micro_batch_size = 3, .max_micro_batches = 5, .separator = separator});
  result.evaluation = state.evaluate(evaluator).loss;
  CheckpointState values;
  if (world.rank() != 0) {
    for (int save = 0; save < 2; ++save) state.save(nullptr, values);
    return result;
  }
  // Twice: nothing of the first is left for the second.
  {
    CheckpointWriter first(folder, config.train.steps - 1);
    state.save(&first, values);
  }
  CheckpointWriter writer(folder, config.train.steps);
  state.save(&writer, values);
  const Checkpoint checkpoint = Checkpoint::open(writer.commit(values));
  add_tensors(checkpoint, kModelFile, result.tensors);
  add_tensors(checkpoint, kOptimizerFile, result.tensors);
  if (config.train.average_decay > 0) add_tensors(checkpoint, kAverageFile, result.tensors);
  if (config.model.experts.balance == "bias" && config.model.experts.count > 0) {
    add_tensors(checkpoint, kRouterBiasFile, result.tensors);
  }
  return result;
}

inline TrainedModel train_on(int ranks, const TrainConfig& config) {
  TrainedModel result;
  const TemporaryFolder folder;
  run_threads(ranks, [&](Group& world) {
    TrainedModel own = train_model(config, world, folder.path().string());
    if (world.rank() == 0) result = std::move(own);
  });
  return result;
}

// Bit for bit.
inline void expect_same_model(const TrainedModel& found, const TrainedModel& expected,
                              const std::string& what) {
  EXPECT_EQ(found.norms, expected.norms) << what;
  ASSERT_EQ(found.losses.size(), expected.losses.size()) << what;
  EXPECT_EQ(found.evaluation, expected.evaluation) << what;
  ASSERT_EQ(found.tensors.size(), expected.tensors.size()) << what;
  for (const auto& [name, tensor] : expected.tensors) {
    ASSERT_TRUE(found.tensors.contains(name)) << what << ": " << name;
    EXPECT_TRUE(found.tensors.at(name).equal(tensor)) << what << ": " << name;
  }
}

}  // namespace trireme::testing

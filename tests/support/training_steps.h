// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Whole training steps of small models on tokens from a formula, and the memory that they took.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temporary_folder.h"
#include "trireme/base/random.h"
#include "trireme/comm/world.h"
#include "trireme/data/token_shards.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/train/model_state.h"
#include "trireme/train/train_step.h"

namespace trireme::testing {

struct TrainingSteps {
  std::vector<double> losses;
  at::Tensor weights;  // f32, flat
  MemorySplit at_peak;
  std::int64_t flat_elements = 0;
};

inline TokenShards random_shards(const std::string& folder, std::int64_t vocab_size) {
  const RandomStream random(3, "tokens");
  std::vector<TokenId> ids(20000);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<TokenId>(random.bits(i) % static_cast<std::uint64_t>(vocab_size));
  }
  TokenShardWriter writer(folder, "train", vocab_size, "0000000000000000");
  writer.append(ids);
  writer.finish();
  return {folder, "train"};
}

inline MemorySplit difference(MemorySplit a, const MemorySplit& b) {
  for (const MemoryCategory category : kMemoryCategories) a[category] -= b[category];
  return a;
}

// config.train.steps steps, alone, config.model resolved. On threads of their own, whose scratch
// memory begins and ends with them.
inline TrainingSteps run_training_steps(const TrainConfig& config, int threads) {
  install_caching_allocator();
  TrainingSteps result;
  std::thread([&] {
    at::set_num_threads(threads);
    const TemporaryFolder folder;
    const TokenShards shards = random_shards(folder.path().string(), config.model.vocab_size);
    const MemorySplit before = process_memory().report().current;
    process_memory().reset_peak();
    const std::unique_ptr<Group> alone = join_world({});
    ModelState state(config, *alone, 7);
    TrainStep step(config, shards, state);
    for (std::int64_t i = 0; i < config.train.steps; ++i) {
      result.losses.push_back(step.run(i, false).loss);
    }
    result.at_peak = difference(process_memory().report().at_peak, before);
    result.weights = state.sharded().gather_weights().clone();
    result.flat_elements = state.sharded().layout().size;
  }).join();
  return result;
}

}  // namespace trireme::testing

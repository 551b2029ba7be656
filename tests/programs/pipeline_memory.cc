// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A rank of a pipeline that trains small models in all kinds of stages, a process of its own, and
// what its memory was used for beside what the plan says. Started by trireme launch; rank 0 prints,
// for each model and each rank of its pipeline, a line of JSON. Arguments: compute.recompute,
// parallel.shard.

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/support/training_steps.h"
#include "trireme/base/error.h"
#include "trireme/launch/init.h"
#include "trireme/train/memory_estimate.h"

namespace trireme {
namespace {

struct Case {
  std::string schedule, family, dtype, tied, recompute;

  std::string name() const {
    return fmt::format("{} {} {} tied={} {}", schedule, family, dtype, tied, recompute);
  }
};

std::vector<Case> cases(const std::string& recompute) {
  std::vector<Case> all;
  for (const std::string schedule : {"gpipe", "1f1b", "interleaved", "zb-h1", "zbv"}) {
    for (const std::string family : {"gpt2", "llama"}) {
      for (const std::string dtype : {"f32", "bf16"}) {
        for (const std::string tied : {"yes", "no"}) {
          all.push_back({schedule, family, dtype, tied, recompute});
        }
      }
    }
  }
  return all;
}

// With ZeRO two ranks have the same stages.
TrainConfig config_of(const Case& one, int shard, int workers) {
  const int ranks = shard > 0 ? workers / 2 : workers;
  TrainConfig config;
  config.model.family = one.family;
  config.model.layers = 2 * ranks + 1;
  config.model.width = 96;
  config.model.heads = 6;
  config.model.kv_heads = one.family == "llama" ? 2 : 0;
  config.model.context = 100;
  config.model.vocab_size = 1003;
  config.model.tie_head = one.tied;
  config.model.resolve(0);
  config.train.dtype = one.dtype;
  config.train.steps = 2;
  config.batch.micro_batch_size = 4;
  config.batch.micro_batches = 8;
  config.compute.recompute = one.recompute;
  config.parallel.pp = ranks;
  config.parallel.shard = shard;
  config.parallel.pipeline.schedule = one.schedule;
  return config;
}

// Of this rank: activations at most, and weights, gradients and optimizer in the end.
std::array<std::int64_t, 4> measure(const TrainConfig& config, const TokenShards& shards,
                                    Group& world) {
  const MemorySplit before = process_memory().report().current;
  ModelState state(config, world, 7);
  TrainStep step(config, shards, state);
  step.run(0, false);
  process_memory().reset_peak();
  step.run(1, false);
  const MemoryReport report = process_memory().report();
  const MemorySplit kept = testing::difference(report.current, before);
  return {report.peaks[MemoryCategory::kActivations] - before[MemoryCategory::kActivations],
          kept[MemoryCategory::kWeights], kept[MemoryCategory::kGradients],
          kept[MemoryCategory::kOptimizer]};
}

void run_case(const Case& one, int shard, Group& world) {
  const TrainConfig config = config_of(one, shard, world.size());
  const testing::TemporaryFolder folder;
  const TokenShards shards =
      testing::random_shards(folder.path().string(), config.model.vocab_size);
  const auto own = measure(config, shards, world);
  std::vector<std::int64_t> all(own.size() * static_cast<std::size_t>(world.size()), 0);
  std::copy(own.begin(), own.end(),
            all.begin() + static_cast<std::ptrdiff_t>(own.size()) * world.rank());
  world.all_reduce(buffer_of(std::span(all)));
  if (world.rank() != 0) return;
  const int dp = shard > 0 ? 2 : 1;
  const std::vector<MemorySplit> planned = pipeline_memory(
      config, {.ranks = world.size()}, plan_pipeline(config, dp, estimate_layer_times(config)));
  for (std::size_t rank = 0; rank < planned.size(); ++rank) {
    const std::int64_t* const measured =
        all.data() + own.size() * rank * static_cast<std::size_t>(dp);
    const auto pair = [&](MemoryCategory category, int at) {
      return fmt::format("\"{}\": [{}, {}]", memory_category_name(category),
                         planned[rank][category], measured[at]);
    };
    std::printf(
        "{\"case\": \"%s\", \"rank\": %zu, %s, %s, %s, %s}\n", one.name().c_str(), rank,
        pair(MemoryCategory::kActivations, 0).c_str(), pair(MemoryCategory::kWeights, 1).c_str(),
        pair(MemoryCategory::kGradients, 2).c_str(), pair(MemoryCategory::kOptimizer, 3).c_str());
  }
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  using namespace trireme;
  try {
    at::set_num_threads(1);
    install_caching_allocator();
    const std::unique_ptr<Group> world = init();
    // Every so many of them.
    const std::size_t every = argc > 3 ? argv[3][0] - '0' : 1;
    const std::vector<Case> all = cases(argc > 1 ? argv[1] : "none");
    for (std::size_t i = 0; i < all.size(); i += every) {
      const Case& one = all[i];
      const std::unique_ptr<Group> own = world->duplicate(one.name());
      run_case(one, argc > 2 ? argv[2][0] - '0' : 0, *own);
    }
    world->close();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

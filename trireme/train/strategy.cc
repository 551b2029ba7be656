// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/strategy.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <bit>
#include <mutex>
#include <string>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/launch/companion_workers.h"
#include "trireme/launch/init.h"
#include "trireme/launch/local_workers.h"
#include "trireme/ops/threads.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/topology/host.h"
#include "trireme/train/mirrored_model.h"
#include "trireme/train/zero_model.h"

namespace trireme {
namespace {

constexpr std::int64_t kDefaultMicroBatches = 4;

// The least number from the default on that the ranks can share; ranks itself is one.
std::int64_t default_micro_batches(int ranks, bool even_shares) {
  if (even_shares && !std::has_single_bit(static_cast<unsigned>(ranks))) return ranks;
  std::int64_t micro_batches = kDefaultMicroBatches;
  while (!std::ranges::count(MicroBatchPlan::fitting_ranks(micro_batches), ranks)) ++micro_batches;
  return micro_batches;
}

void check_range(const char* what, std::int64_t value, std::int64_t least) {
  if (value < least) throw_error<ConfigError>("{} {}: at least {} is needed", what, value, least);
}

void check_launch(int workers, bool one_host, const LaunchInfo& info) {
  if (info.launcher == Launcher::kNone) return;
  const std::string launcher = launcher_name(info.launcher);
  if (workers != 1 && workers != info.size) {
    throw_error<ConfigError>(
        "the strategy asks for {} workers, but {} has already started {}: leave workers out",
        workers, launcher, info.size);
  }
  if (one_host && info.local_size != info.size) {
    throw_error<ConfigError>(
        "MirroredStrategy is for the workers of one host, and {} has started {} of {} here: use "
        "MultiWorkerMirroredStrategy",
        launcher, info.local_size, info.size);
  }
}

}  // namespace

StrategyScope::StrategyScope(Strategy& strategy, std::uint64_t seed) : strategy_(strategy) {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  generator_state_ = generator.get_state();
  generator.set_current_seed(seed);
}

StrategyScope::~StrategyScope() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  generator.set_state(generator_state_);
}

Strategy::Strategy(const Common& common) : world_(nullptr), seed_(common.seed) {
  check_range("workers", common.workers, 1);
  check_range("threads", common.threads, 0);
  check_range("micro_batches", common.micro_batches, 0);
  LaunchInfo info = launch_info();
  check_launch(common.workers, common.one_host, info);
  if (info.launcher == Launcher::kNone && common.workers > 1) {
    companions_ = std::make_unique<CompanionWorkers>(common.workers);
    info = companions_->info();
  }
  follow_launcher();
  set_log_rank(info.rank, info.size);
  micro_batches_ = common.micro_batches > 0 ? common.micro_batches
                                            : default_micro_batches(info.size, common.even_shares);
  const int threads =
      common.threads > 0 ? common.threads : std::max(1, usable_cores() / info.local_size);
  set_compute_threads(
      {.threads = threads, .local_rank = info.local_rank, .local_size = info.local_size});
  WorldOptions options = world_options(info);
  options.fingerprint = {{"threads", std::to_string(threads)},
                         {"micro_batches", std::to_string(micro_batches_)},
                         {"seed", std::to_string(seed_)},
                         {"numerics", numerics_fingerprint()}};
  own_world_ = join_world(options);
  world_ = own_world_.get();
}

Strategy::Strategy(Group& group, const Common& common)
    : world_(&group),
      seed_(common.seed),
      micro_batches_(common.micro_batches > 0
                         ? common.micro_batches
                         : default_micro_batches(group.size(), common.even_shares)) {
  check_range("micro_batches", common.micro_batches, 0);
}

Strategy::~Strategy() = default;

int Strategy::rank() const { return world_->rank(); }
int Strategy::size() const { return world_->size(); }

void Strategy::close() {
  if (own_world_) own_world_->close();
  if (companions_) companions_->wait();
}

MirroredStrategy::MirroredStrategy(const MirroredOptions& options)
    : Strategy(Common{.workers = options.workers,
                      .threads = options.threads,
                      .micro_batches = options.micro_batches,
                      .seed = options.seed,
                      .one_host = true}),
      compression_(options.compression) {}

MirroredStrategy::MirroredStrategy(Group& group, const MirroredOptions& options)
    : Strategy(group, Common{.micro_batches = options.micro_batches, .seed = options.seed}),
      compression_(options.compression) {}

std::unique_ptr<SpreadModel> MirroredStrategy::spread(torch::nn::Module& module,
                                                      const OptimizerRecipe& recipe,
                                                      double average_decay) {
  return make_mirrored_model(module, world(), recipe,
                             {.micro_batches = micro_batches(), .compression = compression_},
                             average_decay);
}

MultiWorkerMirroredStrategy::MultiWorkerMirroredStrategy(const MultiWorkerMirroredOptions& options)
    : Strategy(Common{.threads = options.threads,
                      .micro_batches = options.micro_batches,
                      .seed = options.seed}),
      compression_(options.compression) {}

std::unique_ptr<SpreadModel> MultiWorkerMirroredStrategy::spread(torch::nn::Module& module,
                                                                 const OptimizerRecipe& recipe,
                                                                 double average_decay) {
  return make_mirrored_model(module, world(), recipe,
                             {.micro_batches = micro_batches(), .compression = compression_},
                             average_decay);
}

ShardedStrategy::ShardedStrategy(const ShardedOptions& options)
    : Strategy(Common{.workers = options.workers,
                      .threads = options.threads,
                      .micro_batches = options.micro_batches,
                      .seed = options.seed,
                      .even_shares = options.stage >= 2}),
      stage_(options.stage),
      shard_ranks_(options.shard_ranks) {}

ShardedStrategy::ShardedStrategy(Group& group, const ShardedOptions& options)
    : Strategy(group, Common{.micro_batches = options.micro_batches,
                             .seed = options.seed,
                             .even_shares = options.stage >= 2}),
      stage_(options.stage),
      shard_ranks_(options.shard_ranks) {}

std::unique_ptr<SpreadModel> ShardedStrategy::spread(torch::nn::Module& module,
                                                     const OptimizerRecipe& recipe,
                                                     double average_decay) {
  return make_zero_model(
      module, world(), recipe,
      {.stage = stage_, .micro_batches = micro_batches(), .shard_ranks = shard_ranks_},
      average_decay);
}

}  // namespace trireme

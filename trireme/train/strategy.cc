// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/strategy.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <mutex>
#include <string>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/launch/companion_workers.h"
#include "trireme/launch/init.h"
#include "trireme/launch/local_workers.h"
#include "trireme/ops/threads.h"
#include "trireme/parallel/micro_batch_plan.h"
#include "trireme/ps/dense_codec.h"
#include "trireme/topology/host.h"
#include "trireme/train/hosted_job.h"
#include "trireme/train/mirrored_model.h"
#include "trireme/train/parameter_server_job.h"
#include "trireme/train/served_model.h"
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

// given: what the strategy asks for, 1 unless it says so.
void check_started(const char* what, int given, int started, const std::string& launcher) {
  if (given == 1 || given == started) return;
  throw_error<ConfigError>(
      "the strategy asks for {} {}, but {} has already started {}: leave {} out", given, what,
      launcher, started, what);
}

void check_launch(int workers, bool one_host, const LaunchInfo& info) {
  if (info.launcher == Launcher::kNone) return;
  const std::string launcher = launcher_name(info.launcher);
  check_started("workers", workers, info.size, launcher);
  if (one_host && info.local_size != info.size) {
    throw_error<ConfigError>(
        "MirroredStrategy is for the workers of one host, and {} has started {} of {} here: use "
        "MultiWorkerMirroredStrategy",
        launcher, info.local_size, info.size);
  }
}

// Where workers have no servers yet, rank 0 is to hold them for those of its host.
void check_servers(const ParameterServerOptions& options, const LaunchInfo& info) {
  const std::string launcher = launcher_name(info.launcher);
  if (info.parameter_servers) {
    check_started("workers", options.workers, info.parameter_servers->workers, launcher);
    return check_started("servers", options.servers, info.parameter_servers->servers, launcher);
  }
  if (info.launcher == Launcher::kNone) return;
  check_started("workers", options.workers, info.size, launcher);
  if (info.launcher == Launcher::kTrireme && info.local_size == info.size) return;
  throw_error<ConfigError>(
      "{} has started {} workers, {} of them here, but no parameter servers: start them with "
      "trireme launch --servers {} --workers {} -- PROGRAM",
      launcher, info.size, info.local_size, options.servers, info.local_size);
}

void check(const ParameterServerOptions& options) {
  check_range("servers", options.servers, 1);
  check_range("workers", options.workers, 1);
  check_range("threads", options.threads, 0);
  check_range("micro_batches", options.micro_batches, 0);
  check_range("range_bytes", options.range_bytes, 4 * kShardBlock);
  ps::Consistency::parse(options.consistency);
  if (!options.codec.empty()) ps::make_dense_codec(options.codec);
}

// Of each worker; also pins them.
int start_threads(int wanted, const LaunchInfo& info) {
  const int threads = wanted > 0 ? wanted : std::max(1, usable_cores() / info.local_size);
  set_compute_threads(
      {.threads = threads, .local_rank = info.local_rank, .local_size = info.local_size});
  return threads;
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

WorldStrategy::WorldStrategy(const Common& common) : Strategy(common.seed), world_(nullptr) {
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
  const int threads = start_threads(common.threads, info);
  WorldOptions options = world_options(info);
  options.fingerprint = {{"threads", std::to_string(threads)},
                         {"micro_batches", std::to_string(micro_batches_)},
                         {"seed", std::to_string(seed())},
                         {"numerics", numerics_fingerprint()}};
  own_world_ = join_world(options);
  world_ = own_world_.get();
}

WorldStrategy::WorldStrategy(Group& group, const Common& common)
    : Strategy(common.seed),
      world_(&group),
      micro_batches_(common.micro_batches > 0
                         ? common.micro_batches
                         : default_micro_batches(group.size(), common.even_shares)) {
  check_range("micro_batches", common.micro_batches, 0);
}

WorldStrategy::~WorldStrategy() = default;

int WorldStrategy::rank() const { return world_->rank(); }
int WorldStrategy::size() const { return world_->size(); }

void WorldStrategy::close() {
  if (own_world_) own_world_->close();
  if (companions_) companions_->wait();
}

MirroredStrategy::MirroredStrategy(const MirroredOptions& options)
    : WorldStrategy(Common{.workers = options.workers,
                           .threads = options.threads,
                           .micro_batches = options.micro_batches,
                           .seed = options.seed,
                           .one_host = true}),
      compression_(options.compression) {}

MirroredStrategy::MirroredStrategy(Group& group, const MirroredOptions& options)
    : WorldStrategy(group, Common{.micro_batches = options.micro_batches, .seed = options.seed}),
      compression_(options.compression) {}

std::unique_ptr<SpreadModel> MirroredStrategy::spread(torch::nn::Module& module,
                                                      const OptimizerRecipe& recipe,
                                                      double average_decay) {
  return make_mirrored_model(module, world(), recipe,
                             {.micro_batches = micro_batches(), .compression = compression_},
                             average_decay);
}

MultiWorkerMirroredStrategy::MultiWorkerMirroredStrategy(const MultiWorkerMirroredOptions& options)
    : WorldStrategy(Common{.threads = options.threads,
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
    : WorldStrategy(Common{.workers = options.workers,
                           .threads = options.threads,
                           .micro_batches = options.micro_batches,
                           .seed = options.seed,
                           .even_shares = options.stage >= 2}),
      stage_(options.stage),
      shard_ranks_(options.shard_ranks) {}

ShardedStrategy::ShardedStrategy(Group& group, const ShardedOptions& options)
    : WorldStrategy(group, Common{.micro_batches = options.micro_batches,
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

ParameterServerStrategy::ParameterServerStrategy(const ParameterServerOptions& options)
    : Strategy(options.seed), options_(options) {
  check(options);
  LaunchInfo info = launch_info();
  check_servers(options, info);
  if (info.launcher == Launcher::kNone && !info.parameter_servers && options.workers > 1) {
    companions_ = std::make_unique<CompanionWorkers>(options.workers);
    info = companions_->info();
  }
  follow_launcher();
  if (info.parameter_servers) {
    worker_ = worker_options(info);
    options_.workers = info.parameter_servers->workers;
  } else {
    worker_ = {.coordinator_address = info.address,
               .coordinator_port = info.port,
               .secret = info.secret,
               .rank = info.rank};
    options_.workers = info.size;
    if (info.rank == 0) host(info.listen_fd);
  }
  set_log_rank(worker_.rank, options_.workers);
  settings_ = fmt::format("threads {}", start_threads(options.threads, info));
  begin();
}

ParameterServerStrategy::ParameterServerStrategy(const ps::WorkerOptions& worker,
                                                 const ParameterServerOptions& options)
    : Strategy(options.seed), options_(options), worker_(worker) {
  check(options);
  begin();
}

void ParameterServerStrategy::begin() {
  worker_.codec = options_.codec;
  if (options_.micro_batches == 0) {
    options_.micro_batches = default_micro_batches(options_.workers, false);
  }
  check_served_micro_batches(ps::Consistency::parse(options_.consistency), options_.micro_batches,
                             options_.workers);
  settings_ += fmt::format(", seed {}, numerics {}", seed(), numerics_fingerprint());
}

void ParameterServerStrategy::host(int listen_fd) {
  hosted_.reset();
  hosted_ = std::make_unique<HostedJob>(HostedJobOptions{.servers = options_.servers,
                                                         .workers = options_.workers,
                                                         .listen_fd = listen_fd,
                                                         .secret = worker_.secret});
  worker_.coordinator_port = hosted_->port();
}

ParameterServerStrategy::~ParameterServerStrategy() = default;

std::unique_ptr<SpreadModel> ParameterServerStrategy::spread(torch::nn::Module& module,
                                                             const OptimizerRecipe& recipe,
                                                             double average_decay) {
  if (std::exchange(compiled_, true)) {
    if (hosted_ == nullptr || options_.workers > 1) {
      throw_error<ConfigError>(
          "compile() once more under a ParameterServerStrategy: the servers that its workers share "
          "keep one model, compiled once");
    }
    parameters_.reset();
    host(-1);
  }
  ServedOptions options;
  options.worker = worker_;
  options.job.consistency = ps::Consistency::parse(options_.consistency);
  options.job.backups = options_.backups;
  options.job.range_bytes = options_.range_bytes;
  options.job.settings = settings_;
  options.workers = options_.workers;
  options.micro_batches = options_.micro_batches;
  ServedModel served = make_served_model(module, recipe, std::move(options), average_decay);
  parameters_ = served.parameters;
  return std::move(served.model);
}

void ParameterServerStrategy::close() {
  if (parameters_) {
    if (hosted_) parameters_->worker().wait_for_others_to_leave();
    parameters_->worker().leave();
    parameters_.reset();
  }
  if (hosted_) hosted_->close();
  if (!companions_) return;
  try {
    companions_->wait();
  } catch (const Error& error) {
    log_warn("{}: the others have gone on without it", error.what());
  }
}

}  // namespace trireme

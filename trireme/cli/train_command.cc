// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/cli/commands.h"
#include "trireme/comm/world.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/init.h"
#include "trireme/launch/local_workers.h"
#include "trireme/ops/machine_rates.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/thread_pools.h"
#include "trireme/ops/threads.h"
#include "trireme/topology/host.h"
#include "trireme/train/prepare_run.h"
#include "trireme/train/train_config.h"
#include "trireme/train/trainer.h"

namespace trireme::cli {
namespace {

constexpr auto kRateBudget = std::chrono::milliseconds(300);
constexpr auto kLookForPreparation = std::chrono::milliseconds(100);

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  int workers = 0;  // 0: parallel.dp, or one, times parallel.tp
  bool resume = false;
  // A worker of --workers, whose launcher has prepared the run.
  bool prepared = false;
};

constexpr const char* kPreparedFlag = "--prepared";

std::chrono::milliseconds to_milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1e3));
}

int threads_of_worker(const TrainConfig& config, int local_workers) {
  if (config.compute.threads > 0) return static_cast<int>(config.compute.threads);
  return std::max(1, usable_cores() / local_workers);
}

WorldOptions train_world_options(const TrainConfig& config, const LaunchInfo& info) {
  WorldOptions options = world_options(info);
  options.engine = config.parallel.engine;
  options.network_interface = config.parallel.network_interface;
  options.fingerprint = result_settings(config);
  options.fingerprint.emplace_back("parallel.shard", std::to_string(config.parallel.shard));
  options.fingerprint.emplace_back("parallel.tp", std::to_string(config.parallel.tp));
  // What decides which collectives a pass has, and how many passes there are.
  options.fingerprint.emplace_back("compute.recompute", config.compute.recompute);
  options.fingerprint.emplace_back("evaluation.every", std::to_string(config.evaluation.every));
  options.fingerprint.emplace_back("evaluation.micro_batches",
                                   std::to_string(config.evaluation.micro_batches));
  options.fingerprint.emplace_back("parallel.shard_ranks",
                                   std::to_string(config.parallel.shard_ranks));
  const PipelineConfig& pipeline = config.parallel.pipeline;
  options.fingerprint.emplace_back("parallel.pp", std::to_string(config.parallel.pp));
  options.fingerprint.emplace_back("parallel.pipeline.schedule", pipeline.schedule);
  options.fingerprint.emplace_back("parallel.pipeline.chunks", std::to_string(pipeline.chunks));
  options.fingerprint.emplace_back("parallel.pipeline.layers",
                                   fmt::format("{}", fmt::join(pipeline.layers, ",")));
  options.fingerprint.emplace_back("parallel.pipeline.balance", pipeline.balance);
  options.fingerprint.emplace_back("parallel.pipeline.trace_step",
                                   std::to_string(pipeline.trace_step));
  options.fingerprint.emplace_back("parallel.ep", std::to_string(config.parallel.ep));
  options.fingerprint.emplace_back("parallel.cp", std::to_string(config.parallel.cp));
  options.fingerprint.emplace_back("parallel.cp_method", config.parallel.cp_method);
  options.fingerprint.emplace_back("parallel.tp_chunks", std::to_string(config.parallel.tp_chunks));
  options.fingerprint.emplace_back("parallel.sequence",
                                   config.parallel.sequence ? "true" : "false");
  options.fingerprint.emplace_back("parallel.bucket_bytes",
                                   std::to_string(config.parallel.bucket_bytes));
  options.fingerprint.emplace_back("numerics", numerics_fingerprint());
  options.join_timeout = to_milliseconds(config.parallel.join_timeout_seconds);
  options.timeout = to_milliseconds(config.parallel.timeout_seconds);
  return options;
}

void start_compute(const TrainConfig& config, const LaunchInfo& info, int threads) {
  keep_memory_pages();
  install_caching_allocator();
  set_compute_threads({.threads = threads,
                       .local_rank = info.local_rank,
                       .local_size = info.local_size,
                       .pin = config.compute.pin});
  if (info.local_rank != 0) return;
  for (const std::string& advice : thread_pool_advice(loaded_thread_pools()))
    log_warn("{}", advice);
}

void measure_limit(const TrainConfig& config, TrainerOptions& options) {
  options.limit_flops_per_s = measure_gemm_flops_per_s(
      config.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat, kRateBudget);
  // The run's peak of memory is not that of the measurement.
  release_cached_memory();
  process_memory().reset_peak();
}

// One rank of the job, prepared already or, unless --workers started it, prepared here by rank 0.
int run_rank(const TrainConfig& config, const TrainArguments& arguments, const LaunchInfo& info) {
  follow_launcher();
  set_log_rank(info.rank, info.size);
  const int threads = threads_of_worker(config, info.local_size);
  std::unique_ptr<RunFolderLock> lock;
  if (!arguments.prepared && info.rank == 0) {
    lock = prepare_run(config, {.resume = arguments.resume,
                                .workers = info.size,
                                .local_workers = info.local_size,
                                .threads = threads});
  }
  start_compute(config, info, threads);
  const std::unique_ptr<Group> world = join_world(train_world_options(config, info));
  world->barrier();  // all ranks measure at the same time
  TrainerOptions options{.resume = arguments.resume};
  measure_limit(config, options);
  Trainer trainer(config, *world, options);
  trainer.run();
  world->close();
  return 0;
}

// What a worker of a job with parameter servers waits for where rank 0 prepares the run: its
// config.yaml, which is written last. The workers are in no world, so that one may end without the
// others.
void await_preparation(const TrainConfig& config) {
  const Deadline deadline = Deadline::after(to_milliseconds(config.parallel.join_timeout_seconds));
  const std::string path = RunFolder(config.out).config();
  while (!std::filesystem::exists(path)) {
    if (deadline.expired()) {
      throw_error<TimeoutError>(
          "rank 0 has not written '{}' within {} s (parallel.join_timeout_seconds): it must be on "
          "storage that all hosts share",
          path, config.parallel.join_timeout_seconds);
    }
    std::this_thread::sleep_for(kLookForPreparation);
  }
}

// One worker of a job with parameter servers.
int run_served(const TrainConfig& config, const TrainArguments& arguments, const LaunchInfo& info) {
  follow_launcher();
  set_log_rank(info.rank, info.size);
  const ParameterServerJob& job = *info.parameter_servers;
  const int threads = threads_of_worker(config, info.local_size);
  std::unique_ptr<RunFolderLock> lock;
  if (!arguments.prepared && info.rank == 0) {
    const RunFolder folder(config.out);
    if (job.restart > 0 && std::filesystem::exists(folder.config())) {
      lock = std::make_unique<RunFolderLock>(folder, true);  // the one before has prepared it
    } else {
      lock = prepare_run(config, {.resume = arguments.resume,
                                  .workers = info.size,
                                  .local_workers = info.local_size,
                                  .threads = threads});
    }
  } else if (!arguments.prepared) {
    await_preparation(config);
  }
  start_compute(config, info, threads);
  TrainerOptions options{.resume = arguments.resume};
  measure_limit(config, options);
  ServedWorker served{
      .worker = {.coordinator_address = job.address,
                 .coordinator_port = job.port,
                 .secret = info.secret,
                 .rank = info.rank,
                 .join_timeout = to_milliseconds(config.parallel.join_timeout_seconds),
                 .timeout = to_milliseconds(config.parallel.timeout_seconds)},
      .workers = job.workers,
      .servers = job.servers};
  Trainer trainer(config, served, options);
  trainer.run();
  return 0;
}

// The servers that the config asks for, and those that there are.
void settle_servers(TrainConfig& config, const LaunchInfo& info) {
  ServersConfig& servers = config.parallel.ps;
  if (!info.parameter_servers) {
    if (servers.servers > 0 && info.launcher != Launcher::kNone) {
      throw_error<ConfigError>(
          "parallel.ps.servers is {}, but {} has started workers alone: start them with trireme "
          "launch --servers {}",
          servers.servers, launcher_name(info.launcher), servers.servers);
    }
    if (servers.servers == 0 && servers.is_given()) {
      throw_error<ConfigError>(
          "parallel.ps is given, but there are no parameter servers: set parallel.ps.servers, or "
          "start them with trireme launch --servers");
    }
    return;
  }
  const int started = info.parameter_servers->servers;
  if (servers.servers != 0 && servers.servers != started) {
    throw_error<ConfigError>(
        "parallel.ps.servers is {}, but {} have been started: leave it out, or start as many",
        servers.servers, started);
  }
  servers.servers = started;
}

int run_train(const TrainArguments& arguments, const std::vector<std::string>& command) {
  TrainConfig config = load_train_config(ConfigTree::load(arguments.config, arguments.overrides));
  const LaunchInfo info = launch_info();
  settle_servers(config, info);
  if (arguments.prepared && info.launcher != Launcher::kTrireme) {
    throw_error<ConfigError>("{} is what --workers says to the workers that it starts",
                             kPreparedFlag);
  }
  if (info.launcher != Launcher::kNone) {
    if (arguments.workers != 0 && !arguments.prepared) {
      throw_error<ConfigError>(
          "--workers {} starts workers, but {} has already started {}: leave --workers out",
          arguments.workers, launcher_name(info.launcher), info.size);
    }
    return info.parameter_servers ? run_served(config, arguments, info)
                                  : run_rank(config, arguments, info);
  }
  if (info.parameter_servers) return run_served(config, arguments, info);
  const auto asked =
      std::max<std::int64_t>(1, config.parallel.dp) * config.parallel.ranks_of_a_replica();
  const int workers = arguments.workers > 0 ? arguments.workers : static_cast<int>(asked);
  const auto servers = static_cast<int>(config.parallel.ps.servers);
  if (workers == 1 && servers == 0) return run_rank(config, arguments, info);
  const auto lock = prepare_run(config, {.resume = arguments.resume,
                                         .workers = workers,
                                         .local_workers = workers,
                                         .threads = threads_of_worker(config, workers)});
  std::vector<std::string> worker = command;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  worker.front() = program;
  worker.insert(worker.begin() + 2, kPreparedFlag);  // right after "train"
  LocalWorkersOptions options{.workers = workers, .command = std::move(worker)};
  if (servers > 0) {
    const std::vector<std::string> serve = {program, "serve-parameters"};
    options.parameter_servers =
        ServingOptions{.servers = servers, .server_command = serve, .coordinator_command = serve};
  }
  return run_local_workers(options);
}

}  // namespace

void add_train_command(CLI::App& app, Action& action, std::vector<std::string> command_line) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* command = app.add_subcommand("train", "train a model on a folder of text");
  command->add_option("config", arguments->config, "YAML file with the settings")->required();
  command->add_option("settings", arguments->overrides,
                      "key=value pairs that go before the file, such as train.steps=100");
  command
      ->add_option("--workers", arguments->workers,
                   "worker processes to start on this host (default: parallel.dp, or 1, times "
                   "pp, ep, cp and tp)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--resume", arguments->resume, "go on with the run in the folder 'out'");
  command->add_flag(kPreparedFlag, arguments->prepared)->group("");
  command->footer(
      "Example:  trireme train examples/tiny.yaml data.text=/usr/include out=runs/first --workers "
      "2\n"
      "Under trireme launch, torchrun, srun or mpirun, leave --workers out.");
  command->callback([arguments, &action, command_line = std::move(command_line)] {
    action = [arguments, command_line] { return run_train(*arguments, command_line); };
  });
}

}  // namespace trireme::cli

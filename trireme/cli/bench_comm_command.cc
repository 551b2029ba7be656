// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/cli/commands.h"
#include "trireme/comm/bench/comm_bench.h"
#include "trireme/comm/bench/link_limit.h"
#include "trireme/comm/bench/sizes.h"
#include "trireme/comm/world.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/init.h"
#include "trireme/launch/local_workers.h"
#include "trireme/topology/host.h"

namespace trireme::cli {
namespace {

constexpr auto kOperationTimeout = std::chrono::seconds(60);

struct BenchCommArguments {
  std::vector<std::string> operations;
  std::vector<std::string> engines;
  std::vector<int> ranks;
  std::vector<std::string> bytes;
  std::vector<std::string> memory;
  std::string dtype = "f32";
  BenchTiming timing;
  bool all = false;
  bool json = false;
  bool rows_only = false;  // a worker of ours: its launcher has printed the head

  CommBenchOptions options() const;
};

CommBenchOptions BenchCommArguments::options() const {
  CommBenchOptions options;
  options.operations = operations;
  std::vector<std::string> sizes = bytes;
  if (sizes.empty()) {
    sizes = {"4", "4KiB", "256KiB", "4MiB", "64MiB"};
    if (all) sizes.insert(sizes.end(), {"64", "1KiB", "16KiB", "64KiB", "1MiB", "16MiB", "256MiB"});
  }
  for (const std::string& size : sizes) options.bytes.push_back(parse_bytes(size));
  std::sort(options.bytes.begin(), options.bytes.end());
  options.dtype = parse_dtype(dtype);
  options.memory = memory;
  options.timing = timing;
  options.validate();
  return options;
}

void print_head(const BenchCommArguments& arguments) {
  if (arguments.json || arguments.rows_only) return;
  std::printf("%s\n\n%s\n", bench_machine().c_str(), table_header().c_str());
  std::fflush(stdout);
}

// One world of the ranks that the environment describes, per engine. Rank 0 prints.
int run_ranks(const BenchCommArguments& arguments, const LaunchInfo& info) {
  CommBenchOptions options = arguments.options();
  options.own_address = own_route_address(info.address);
  follow_launcher();
  set_log_rank(info.rank, info.size);
  if (info.rank == 0) print_head(arguments);
  const std::vector<std::string> engines =
      arguments.engines.empty() ? std::vector<std::string>{"auto"} : arguments.engines;
  for (const std::string& engine : engines) {
    WorldOptions world_of = world_options(info);
    world_of.engine = engine;
    world_of.timeout = kOperationTimeout;
    if (&engine != &engines.front()) world_of.listen_fd = -1;  // the first world took it over
    const std::unique_ptr<Group> world = join_world(world_of);
    bench_comm(*world, options, [&](const CommBenchRow& row) {
      if (info.rank != 0) return;
      std::printf("%s\n", (arguments.json ? to_json(row) : to_table(row)).c_str());
      std::fflush(stdout);
    });
    world->close();
  }
  return 0;
}

std::vector<std::string> worker_command(const BenchCommArguments& arguments,
                                        const std::string& engine) {
  std::vector<std::string> command = {std::filesystem::read_symlink("/proc/self/exe").string(),
                                      "bench",
                                      "comm",
                                      "--rows-only",
                                      "--engine",
                                      engine};
  const CommBenchOptions options = arguments.options();
  const auto add = [&command](const std::string& name, const std::string& value) {
    command.push_back(name);
    command.push_back(value);
  };
  for (const std::string& operation : options.operations) add("--op", operation);
  for (const std::int64_t bytes : options.bytes) add("--bytes", std::to_string(bytes));
  for (const std::string& memory : options.memory) add("--memory", memory);
  add("--dtype", arguments.dtype);
  add("--repetitions", std::to_string(arguments.timing.max_samples));
  add("--seconds", std::to_string(arguments.timing.seconds));
  if (arguments.json) command.push_back("--json");
  return command;
}

// The vectors of all ranks must fit into this host's memory.
void check_memory(const CommBenchOptions& options, int ranks) {
  const double needed = bench_comm_vector_bytes(options) * ranks;
  const auto available = static_cast<double>(this_host().memory.available_bytes);
  if (available > 0 && needed > 0.75 * available) {
    throw_error<ConfigError>(
        "vectors of {} ranks take {:.1f} GB and {:.1f} GB are available: give fewer --ranks or "
        "less --bytes",
        ranks, needed / 1e9, available / 1e9);
  }
}

// 2, 4, and one per core.
std::vector<int> default_ranks() {
  std::vector<int> ranks = {2, 4, std::max(2, usable_cores())};
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

int run_own_workers(const BenchCommArguments& arguments) {
  const CommBenchOptions options = arguments.options();
  const std::vector<int> ranks = arguments.ranks.empty() ? default_ranks() : arguments.ranks;
  const std::vector<std::string> engines =
      arguments.engines.empty() ? std::vector<std::string>{"shm", "gloo"} : arguments.engines;
  check_memory(options, *std::max_element(ranks.begin(), ranks.end()));
  print_head(arguments);
  for (const int n : ranks) {
    for (const std::string& engine : engines) {
      std::fprintf(stderr, "bench comm: %s, %d ranks\n", engine.c_str(), n);
      const int status =
          run_local_workers({.workers = n, .command = worker_command(arguments, engine)});
      if (status != 0) return status;
    }
  }
  return 0;
}

int run_bench_comm(const BenchCommArguments& arguments) {
  for (const std::string& engine : arguments.engines) check_engine_name(engine);
  const LaunchInfo info = launch_info();
  if (info.launcher == Launcher::kNone) return run_own_workers(arguments);
  if (!arguments.ranks.empty()) {
    throw_error<ConfigError>("--ranks starts workers, but {} has already started {}: leave it out",
                             launcher_name(info.launcher), info.size);
  }
  return run_ranks(arguments, info);
}

}  // namespace

void add_bench_comm(CLI::App& bench, Action& action) {
  auto arguments = std::make_shared<BenchCommArguments>();
  BenchTiming& timing = arguments->timing;
  CLI::App* command = bench.add_subcommand("comm", "collectives between processes, verified first");
  command->add_option("--op", arguments->operations, "operations, by comma (default: all)")
      ->delimiter(',');
  command
      ->add_option("--engine", arguments->engines,
                   "engines, by comma (default: shm,gloo; under a launcher: auto)")
      ->delimiter(',');
  command
      ->add_option("--ranks", arguments->ranks,
                   "processes to start, by comma (default: 2, 4 and one per core)")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  command
      ->add_option("--bytes", arguments->bytes,
                   "sizes of the whole vector, by comma (default: 4,4KiB,256KiB,4MiB,64MiB)")
      ->delimiter(',');
  command->add_option("--dtype", arguments->dtype, "of the elements")->capture_default_str();
  command
      ->add_option("--memory", arguments->memory,
                   "where the vectors lie, by comma: heap, or shared, which ranks of a host "
                   "read directly (default: heap, with engine shm both)")
      ->delimiter(',');
  command->add_option("--repetitions", timing.max_samples, "timed samples of a case at most")
      ->capture_default_str();
  command->add_option("--seconds", timing.seconds, "timed of a case, if at least 5 samples fit")
      ->capture_default_str();
  command->add_flag("--all", arguments->all, "more sizes, up to 256 MiB: takes some minutes");
  command->add_flag("--json", arguments->json, "one JSON object per line instead of a table");
  command->add_flag("--rows-only", arguments->rows_only)->group("");
  command->footer(
      "Of limit: the bytes that must move, at the memory's rate measured in the same run, over "
      "the\n"
      "median; docs/benchmarks.md says which bytes. A default run takes about two minutes.\n"
      "Example:  trireme bench comm --op all_reduce --ranks 2 --bytes 4KiB,64MiB\n"
      "Under torchrun, srun or mpirun it measures their ranks; leave --ranks out.");
  command->callback(
      [arguments, &action] { action = [arguments] { return run_bench_comm(*arguments); }; });
}

}  // namespace trireme::cli

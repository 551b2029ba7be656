// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/checkpoint/atomic_file.h"
#include "trireme/cli/commands.h"
#include "trireme/cli/simulate_report.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/threads.h"
#include "trireme/plan/schedule_file.h"
#include "trireme/plan/timeline_trace.h"
#include "trireme/topology/host.h"
#include "trireme/train/layer_times.h"
#include "trireme/train/parallel_groups.h"
#include "trireme/train/prepare_run.h"

namespace trireme::cli {
namespace {

constexpr int kPlainColumns = 100;  // where there is no terminal
constexpr int kLeastColumns = 40;

struct SimulateArguments {
  std::string config;
  std::vector<std::string> overrides;
  int workers = 0;  // 0: as train starts
  std::string trace;
  std::string csv;
  bool force = false;
  bool json = false;
  bool measure = false;
};

// The config as train reads it, but that what only a run needs may be missing: its folder, its
// text.
TrainConfig load_config(const SimulateArguments& arguments) {
  TrainConfig config;
  bind_config(ConfigTree::load(arguments.config, arguments.overrides), config);
  TrainConfig complete = config;
  if (complete.out.empty()) complete.out = "simulated";
  if (complete.data.text.empty() && complete.data.tokens.empty()) complete.data.text = "simulated";
  complete.validate();
  resolve_without_data(complete);
  complete.validate_model_parallel(complete.model);
  return complete;
}

void check_output(const std::string& path, const char* option, bool force) {
  if (path.empty() || force || !std::filesystem::exists(path)) return;
  throw_error<ConfigError>(
      "{} '{}' exists already: choose another name, or overwrite it with --force", option, path);
}

void write_trace(const std::string& path, const PipelinePlan& plan) {
  std::ostringstream text;
  plan::TraceWriter trace(text);
  for (const plan::TraceSpan& span : plan::trace_spans(plan.report)) trace.add(span);
  trace.close();
  write_file_atomically(path, text.str());
}

void write_csv(const std::string& path, const PipelinePlan& plan) {
  std::ostringstream text;
  plan::write_schedule(text, plan.schedule);
  write_file_atomically(path, text.str());
}

LayerTimes layer_times(const TrainConfig& config, bool measure, int threads) {
  if (!measure) return estimate_layer_times(config);
  keep_memory_pages();
  install_caching_allocator();
  set_compute_threads({.threads = threads});
  return measure_layer_times(config);
}

Simulation simulate(const TrainConfig& config, const SimulateArguments& arguments) {
  const auto asked =
      std::max<std::int64_t>(1, config.parallel.dp) * config.parallel.ranks_of_a_replica();
  Simulation result;
  result.workers = arguments.workers > 0 ? arguments.workers : static_cast<int>(asked);
  result.measured = arguments.measure;
  check_layout(config, result.workers, result.workers);
  const Mesh mesh = train_mesh(config.parallel, result.workers);
  result.mesh = mesh.to_string();
  const int threads = config.compute.threads > 0 ? static_cast<int>(config.compute.threads)
                                                 : std::max(1, usable_cores() / result.workers);
  const JobShape job{.ranks = result.workers, .threads = threads, .local_ranks = result.workers};
  if (config.parallel.pp == 1) {
    result.memory = {estimate_memory(config, job)};
    return result;
  }
  const LayerTimes times = layer_times(config, arguments.measure, threads);
  const int dp = mesh.axis_size("dp");
  result.plan = plan_pipeline(config, dp, times);
  result.memory = pipeline_memory(config, job, *result.plan);
  result.schedules = compare_schedules(config, job, dp, times);
  return result;
}

int terminal_columns() {
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? std::max<int>(kLeastColumns, size.ws_col) : kPlainColumns;
}

int run_simulate(const SimulateArguments& arguments) {
  const TrainConfig config = load_config(arguments);
  check_output(arguments.trace, "--trace", arguments.force);
  check_output(arguments.csv, "--csv", arguments.force);
  if (config.parallel.pp == 1 && !(arguments.trace + arguments.csv).empty()) {
    throw_error<ConfigError>(
        "parallel.pp is 1: there is no pipeline whose schedule --trace or --csv could write");
  }
  const Simulation simulation = simulate(config, arguments);
  if (!arguments.trace.empty()) write_trace(arguments.trace, *simulation.plan);
  if (!arguments.csv.empty()) write_csv(arguments.csv, *simulation.plan);
  const std::string text = arguments.json ? simulation_json(simulation)
                                          : simulation_text(simulation, terminal_columns(),
                                                            ::isatty(STDOUT_FILENO) != 0);
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

void add_simulate_command(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<SimulateArguments>();
  CLI::App* command = app.add_subcommand(
      "simulate", "what a run would do: its pipeline's stages and schedule, and its memory");
  command->add_option("config", arguments->config, "YAML file with the settings of trireme train")
      ->required();
  command->add_option("settings", arguments->overrides,
                      "key=value pairs that go before the file, such as parallel.pp=4");
  command
      ->add_option("--workers", arguments->workers,
                   "of the run (default: parallel.dp, or 1, times pp, ep, cp and tp)")
      ->check(CLI::PositiveNumber);
  command->add_option("--trace", arguments->trace,
                      "write a timeline to this file, for chrome://tracing or Perfetto");
  command->add_option("--csv", arguments->csv,
                      "write the schedule to this file, for parallel.pipeline.schedule");
  command->add_flag("--force", arguments->force, "overwrite these files");
  command->add_flag("--measure", arguments->measure,
                    "measure here how long layers take, instead of estimating it from their sizes");
  command->add_flag("--json", arguments->json, "one JSON object instead of tables");
  command->footer(
      "Starts no workers and needs no data. docs/parallelism_pipeline.md explains the picture.\n"
      "Example:  trireme simulate examples/demo.yaml parallel.pp=4 model.layers=8");
  command->callback(
      [arguments, &action] { action = [arguments] { return run_simulate(*arguments); }; });
}

}  // namespace trireme::cli

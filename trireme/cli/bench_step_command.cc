// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/cli/commands.h"
#include "trireme/cli/own_workers.h"
#include "trireme/cli/temporary_folder.h"
#include "trireme/comm/bench/comm_bench.h"
#include "trireme/launch/init.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/threads.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/train/bench/step_bench.h"

namespace trireme::cli {
namespace {

struct BenchStepArguments {
  StepBenchOptions options;
  std::string shard_ranks = "0";
  std::string sweep;
  int threads = 0;  // of each worker; 0: its share of the cores
  int workers = 0;  // to start
  bool json = false;
};

std::int64_t shard_ranks_of(const std::string& text) {
  if (text == "auto") return kHostRanks;
  std::int64_t value = -1;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < 0) {
    throw_error<ConfigError>(
        "--shard-ranks is '{}'; it must be a number of workers, 0 for all, or auto for those of a "
        "host",
        text);
  }
  return value;
}

// The options of each run: one, or those of the sweep, smallest first. workers: that train
// together.
std::vector<StepBenchOptions> runs_of(const BenchStepArguments& arguments, int workers) {
  StepBenchOptions given = arguments.options;
  given.shard_ranks = shard_ranks_of(arguments.shard_ranks);
  std::vector<StepBenchOptions> runs;
  const auto sweep = [&](std::vector<std::int64_t> values, std::int64_t StepBenchOptions::*field) {
    for (const std::int64_t value : values) {
      runs.push_back(given);
      runs.back().*field = value;
    }
  };
  if (arguments.sweep.empty()) {
    runs = {given};
  } else if (arguments.sweep == "seq") {
    sweep({64, 128, 256, 512, 1024}, &StepBenchOptions::tokens);
  } else if (arguments.sweep == "batch") {
    sweep({1, 2, 4, 8, 16}, &StepBenchOptions::batch);
  } else {
    throw_error<ConfigError>("--sweep goes over seq or batch, not '{}'", arguments.sweep);
  }
  for (const StepBenchOptions& options : runs) options.validate(workers);
  return runs;
}

std::string text_of(const BenchStepArguments& arguments, const StepBenchReport& report) {
  if (arguments.json) return to_json(report);
  return arguments.sweep.empty() ? to_table(report) : to_sweep_row(report);
}

int run_bench_step(const BenchStepArguments& arguments, std::vector<std::string> command) {
  const LaunchInfo info = launch_info();
  const std::vector<StepBenchOptions> runs = runs_of(
      arguments, info.launcher == Launcher::kNone ? std::max(1, arguments.workers) : info.size);
  if (const auto status = run_own_workers(arguments.workers, std::move(command))) return *status;
  use_rank_threads(arguments.threads);
  keep_memory_pages();
  install_caching_allocator();
  const std::unique_ptr<Group> world = init();
  const bool prints = world->rank() == 0;
  if (!arguments.json && prints) {
    std::printf("%s\n\n", bench_machine().c_str());
    if (!arguments.sweep.empty()) std::fputs(sweep_header().c_str(), stdout);
  }
  for (const StepBenchOptions& options : runs) {
    const TemporaryFolder folder("trireme-bench");
    const StepBenchReport report = bench_step(options, folder.path(), *world);
    if (!prints) continue;
    std::fputs(text_of(arguments, report).c_str(), stdout);
    std::fflush(stdout);
  }
  world->close();
  return 0;
}

}  // namespace

void add_bench_step(CLI::App& bench, Action& action, std::vector<std::string> command_line) {
  auto arguments = std::make_shared<BenchStepArguments>();
  StepBenchOptions& options = arguments->options;
  CLI::App* command =
      bench.add_subcommand("step", "whole training steps: where their time goes, and the limit");
  command
      ->add_option("--model", options.model,
                   "gpt2-124m, gpt2-350m, llama-160m, llama-160m-8x2, tiny, tiny-llama")
      ->capture_default_str();
  command->add_option("--batch", options.batch, "sequences of a micro-batch")
      ->capture_default_str();
  command->add_option("--seq", options.tokens, "tokens of a sequence")->capture_default_str();
  command->add_option("--dtype", options.dtype, "f32 or bf16")->capture_default_str();
  command->add_option("--steps", options.steps, "timed steps")->capture_default_str();
  command->add_option("--warm-up", options.warm_up_steps, "steps before those")
      ->capture_default_str();
  command
      ->add_option("--threads", arguments->threads,
                   "of each worker (default: its share of the cores)")
      ->check(CLI::PositiveNumber);
  command->add_option("--workers", arguments->workers, "to start, which train together")
      ->check(CLI::PositiveNumber);
  command->add_option("--accumulate", options.accumulate, "micro-batches of each replica in a step")
      ->capture_default_str();
  command
      ->add_option("--tp", options.tp,
                   "tensor parallelism: workers that compute each sample together")
      ->capture_default_str();
  command->add_flag("--sequence", options.sequence,
                    "with --tp: cut what lies between the cut matrices by tokens");
  command
      ->add_option("--tp-chunks", options.tp_chunks,
                   "with --tp: runs of tokens, each of which travels while the next is computed")
      ->capture_default_str();
  command
      ->add_option("--cp", options.cp,
                   "context parallelism: workers that have a part of each sequence's tokens")
      ->capture_default_str();
  command->add_option("--cp-method", options.cp_method, "ring or ulysses")
      ->check(CLI::IsMember({"ring", "ulysses"}))
      ->capture_default_str();
  command
      ->add_option("--ep", options.ep,
                   "expert parallelism: workers that have a part of the experts")
      ->capture_default_str();
  command
      ->add_option("--pp", options.pp,
                   "pipeline parallelism: workers that have a part of the layers")
      ->capture_default_str();
  command
      ->add_option("--schedule", options.schedule,
                   "with --pp: gpipe, 1f1b, interleaved, zb-h1, zbv, dualpipev or a CSV file")
      ->capture_default_str();
  command->add_option("--pp-chunks", options.pp_chunks,
                      "with --pp: stages of each worker (default: as the schedule has it)");
  command
      ->add_option("--pp-layers", options.pp_layers,
                   "with --pp: blocks of each stage, 5,7 (default: cut by --balance)")
      ->delimiter(',');
  command
      ->add_option("--balance", options.balance,
                   "with --pp: how long layers take, estimate or measure")
      ->check(CLI::IsMember({"estimate", "measure"}))
      ->capture_default_str();
  command->add_option("--shard", options.shard, "stage of ZeRO, 0 to 3")->capture_default_str();
  command
      ->add_option("--shard-ranks", arguments->shard_ranks,
                   "with --shard 1, 2 or 3: workers that keep one copy of the model between them; "
                   "0: all; auto: those of each host")
      ->capture_default_str();
  command->add_option("--sweep", arguments->sweep,
                      "seq: 64 to 1024 tokens a sequence; batch: 1 to 16 sequences");
  command->add_flag("--limit,!--no-limit", options.measure_limit,
                    "measure what this machine could do at best (default: yes)");
  command
      ->add_option("--limit-seconds", options.limit_timing.seconds,
                   "of each shape of matrix product, if at least 5 runs fit")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "one JSON object per line instead of tables");
  command->footer(
      "Of limit: what the step's matrix products and the optimizer's memory traffic take at the\n"
      "best rates measured in the same run, over the median step; docs/compute.md.\n"
      "Example:  trireme bench step --model gpt2-124m --dtype bf16 --batch 4 --seq 256");
  command->callback([arguments, &action, command_line = std::move(command_line)] {
    action = [arguments, command_line] { return run_bench_step(*arguments, command_line); };
  });
}

}  // namespace trireme::cli

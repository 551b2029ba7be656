// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "trireme/cli/commands.h"
#include "trireme/launch/environment.h"
#include "trireme/ops/threads.h"
#include "trireme/train/bench/ps_bench.h"
#include "trireme/train/summary.h"

namespace trireme::cli {
namespace {

int print(const Fields& fields, bool json) {
  if (launch_info().rank != 0) return 0;
  std::fputs((json ? to_json_line(fields) : format_table(fields)).c_str(), stdout);
  return 0;
}

}  // namespace

void add_bench_ps(CLI::App& bench, Action& action) {
  CLI::App* ps = bench.add_subcommand("ps", "traffic of workers with parameter servers");
  ps->require_subcommand(1);
  ps->footer(
      "Runs in the workers of a job:\n"
      "Example:  trireme launch --servers 1 --workers 2 -- trireme bench ps dense --json");

  auto dense = std::make_shared<PsDenseBenchOptions>();
  auto json = std::make_shared<bool>(false);
  CLI::App* command = ps->add_subcommand("dense", "push and pull, beside an all_reduce");
  command->add_option("--elements", dense->elements, "f32, of each worker's gradients")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--optimizer", dense->optimizer, "the servers'")->capture_default_str();
  command->add_option("--codec", dense->codec, "bf16, int8, topk(f) (default: f32)");
  command->add_option("--range-bytes", dense->range_bytes, "of a key range")->capture_default_str();
  command->add_option("--repetitions", dense->repetitions, "timed steps")->capture_default_str();
  command->add_flag("!--no-backups", dense->backups, "each range on one server alone");
  command->add_flag("--json", *json, "one JSON object instead of a table");
  command->callback([=, &action] {
    action = [=] {
      set_compute_threads({.threads = 1});
      return print(bench_ps_dense(*dense), *json);
    };
  });

  auto slow = std::make_shared<PsSlowBenchOptions>();
  command = ps->add_subcommand("slow", "what a slow worker costs the others");
  command->add_option("--consistency", slow->consistency, "sync, bounded(k) or async")
      ->capture_default_str();
  command->add_option("--step-ms", slow->step_ms, "of a step beside the traffic")
      ->capture_default_str();
  command->add_option("--times", slow->slowed_times, "how much longer the last worker's steps take")
      ->capture_default_str();
  command->add_option("--slow-steps", slow->slow_steps, "of each period; 0: all")
      ->capture_default_str();
  command->add_option("--period", slow->period, "steps")->capture_default_str();
  command->add_option("--seconds", slow->seconds, "timed, with and without")->capture_default_str();
  command->add_flag("--json", *json, "one JSON object instead of a table");
  command->callback([=, &action] { action = [=] { return print(bench_ps_slow(*slow), *json); }; });

  auto sparse = std::make_shared<PsSparseBenchOptions>();
  command = ps->add_subcommand("sparse", "rows of an embedding table pushed and pulled");
  command->add_option("--width", sparse->width, "f32 of a row")->capture_default_str();
  command->add_option("--rows", sparse->rows, "that ids are drawn from")->capture_default_str();
  command->add_option("--zipf", sparse->zipf, "exponent of the ids' frequencies; 0: uniform")
      ->capture_default_str();
  command->add_option("--batch", sparse->batch, "ids drawn for a call")->capture_default_str();
  command->add_option("--slices", sparse->slices, "that the table is cut into")
      ->capture_default_str();
  command
      ->add_option("--in-flight", sparse->in_flight,
                   "calls begun before the first of them is waited for")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--optimizer", sparse->optimizer, "the servers'")->capture_default_str();
  command->add_option("--consistency", sparse->consistency, "sync, bounded(k) or async")
      ->capture_default_str();
  command->add_option("--seconds", sparse->seconds, "timed")->capture_default_str();
  command->add_flag("!--no-backups", sparse->backups, "each range on one server alone");
  command->add_flag("--json", *json, "one JSON object instead of a table");
  command->callback([=, &action] {
    action = [=] {
      set_compute_threads({.threads = 1});
      return print(bench_ps_sparse(*sparse), *json);
    };
  });
}

}  // namespace trireme::cli

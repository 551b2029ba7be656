// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <memory>

#include "trireme/cli/commands.h"
#include "trireme/comm/bench/comm_bench.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/threads.h"
#include "trireme/topology/host.h"
#include "trireme/train/bench/op_bench.h"

namespace trireme::cli {
namespace {

struct BenchOpsArguments {
  OpBenchOptions options;
  int threads = 0;
  bool json = false;
};

int run_bench_ops(const BenchOpsArguments& arguments) {
  arguments.options.validate();
  set_compute_threads({.threads = arguments.threads > 0 ? arguments.threads : usable_cores()});
  keep_memory_pages();
  install_caching_allocator();
  if (!arguments.json) {
    std::printf("%s\n\n%s", bench_machine().c_str(), op_table_header().c_str());
  }
  bench_ops(arguments.options, [&](const OpBenchRow& row) {
    std::fputs((arguments.json ? to_json(row) : to_table(row)).c_str(), stdout);
    std::fflush(stdout);
  });
  return 0;
}

}  // namespace

void add_bench_ops(CLI::App& bench, Action& action) {
  auto arguments = std::make_shared<BenchOpsArguments>();
  OpBenchOptions& options = arguments->options;
  CLI::App* command =
      bench.add_subcommand("ops", "each operation of a training step alone, beside its limit");
  command->add_option("--op", options.ops, "operations, by comma (default: all)")->delimiter(',');
  command->add_option("--dtype", options.dtype, "f32 or bf16")->capture_default_str();
  command->add_option("--threads", arguments->threads, "default: all cores")
      ->check(CLI::PositiveNumber);
  command->add_option("--repetitions", options.timing.max_samples, "timed runs of a case at most")
      ->capture_default_str();
  command
      ->add_option("--seconds", options.timing.seconds, "timed of a case, if at least 5 runs fit")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "one JSON object per line instead of a table");
  command->footer(
      "both: forward and backward together. Of limit: the longer of the matrix products at the\n"
      "best rate of their shapes and the bytes at the memory's rate, over the median;\n"
      "docs/compute.md. A default run takes about two minutes.\n"
      "Example:  trireme bench ops --op linear,attention --dtype bf16");
  command->callback(
      [arguments, &action] { action = [arguments] { return run_bench_ops(*arguments); }; });
}

}  // namespace trireme::cli

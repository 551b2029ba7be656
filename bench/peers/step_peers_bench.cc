// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// `make bench-peers-step`: our training step beside PyTorch's, the same model and batch, in turn,
// several rounds.
//
//   step_peers_bench --program build/release/trireme [--dtype f32,bf16] [--rounds 3] [--json]
//
// A round runs every contender once, in a process of its own. Prints for each dtype every
// contender's time of a step (median, p10 and p90 of the rounds' medians) and ours over theirs,
// taken round by round: below 1 we are faster.

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "bench/peers/step_comparison.h"
#include "bench/peers/step_contenders.h"
#include "trireme/comm/bench/comm_bench.h"
#include "trireme/topology/host.h"

namespace trireme::peers {
namespace {

struct Arguments {
  std::string program;
  std::string python = "/usr/bin/python3";
  std::string script = "bench/peers/torch_step.py";
  std::vector<std::string> dtypes = {"f32", "bf16"};
  StepWorkload workload;
  int rounds = 3;
  bool json = false;
};

StepComparison compare(const Arguments& arguments, const std::string& dtype) {
  StepComparison comparison{.workload = arguments.workload, .series = {}};
  comparison.workload.dtype = dtype;
  const std::vector<StepContender> all = step_contenders(
      arguments.program, arguments.python, arguments.script, arguments.workload.threads);
  for (int round = 0; round < arguments.rounds; ++round) {
    for (const StepContender& contender : all) {
      std::fprintf(stderr, "%s, round %d of %d: %s\n", dtype.c_str(), round + 1, arguments.rounds,
                   contender.name.c_str());
      comparison.add(contender, run_step_contender(contender, comparison.workload));
    }
  }
  return comparison;
}

int run(int argc, char** argv) {
  CLI::App app("Our training step beside PyTorch's.", "step_peers_bench");
  Arguments arguments;
  StepWorkload& workload = arguments.workload;
  workload.threads = usable_cores();
  app.add_option("--program", arguments.program, "trireme")->required();
  app.add_option("--python", arguments.python, "has torch")->capture_default_str();
  app.add_option("--script", arguments.script, "torch_step.py")->capture_default_str();
  app.add_option("--model", workload.model, "gpt2-124m, gpt2-350m or tiny")->capture_default_str();
  app.add_option("--dtype", arguments.dtypes)->delimiter(',')->capture_default_str();
  app.add_option("--batch", workload.batch, "sequences of a step")->capture_default_str();
  app.add_option("--seq", workload.tokens, "tokens of a sequence")->capture_default_str();
  app.add_option("--threads", workload.threads)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--steps", workload.steps, "timed, of a round")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--warm-up", workload.warm_up, "steps before those")->capture_default_str();
  app.add_option("--rounds", arguments.rounds)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_flag("--json", arguments.json, "one JSON object per line: each dtype, each peer");
  CLI11_PARSE(app, argc, argv);
  try {
    if (!arguments.json) std::printf("%s\n\n", bench_machine().c_str());
    for (const std::string& dtype : arguments.dtypes) {
      const StepComparison comparison = compare(arguments, dtype);
      std::fputs((arguments.json ? to_json(comparison) : to_table(comparison)).c_str(), stdout);
      std::fflush(stdout);
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "step_peers_bench: error: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace trireme::peers

int main(int argc, char** argv) { return trireme::peers::run(argc, argv); }

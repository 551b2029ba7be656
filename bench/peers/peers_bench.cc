// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// `make bench-peers-comm`: our collectives beside Gloo's own and OpenMPI's, the same cases, checks
// and statistics, in turn, several rounds.
//
//   peers_bench --program build/release/trireme [--json] [--rounds 5]
//
// Prints for each case every contender's time (median, p10 and p90 of the rounds' medians) and
// ours over theirs, taken round by round: below 1 we are faster.

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/peers/comparison.h"
#include "bench/peers/contenders.h"

namespace trireme::peers {
namespace {

struct Arguments {
  std::string program;
  std::vector<std::string> engines = {"shm"};
  std::vector<int> ranks = {2, 4};
  int rounds = 5;
  Workload workload{.operations = {"all_reduce", "reduce_scatter", "all_gather", "all_to_all"},
                    .bytes = {"4KiB", "64MiB"}};
  bool json = false;
};

// Prints the cases of this number of ranks when all rounds are done.
void compare(const Arguments& arguments, int ranks) {
  const std::string folder = std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
  const std::vector<Contender> all = contenders(arguments.program, folder, arguments.engines);
  Comparisons comparisons;
  for (int round = 0; round < arguments.rounds; ++round) {
    for (const Contender& contender : all) {
      std::fprintf(stderr, "%d ranks, round %d of %d: %s\n", ranks, round + 1, arguments.rounds,
                   contender.name.c_str());
      for (const CommBenchRow& row : run_contender(contender, arguments.workload, ranks)) {
        comparisons.add(row, contender.ours);
      }
    }
  }
  for (const Comparison& comparison : comparisons.all()) {
    const std::string text = arguments.json ? to_json(comparison) : to_table(comparison) + "\n";
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  }
}

int run(int argc, char** argv) {
  CLI::App app("Our collectives beside Gloo's own and OpenMPI's.", "peers_bench");
  Arguments arguments;
  app.add_option("--program", arguments.program, "trireme")->required();
  app.add_option("--engine", arguments.engines, "ours")->delimiter(',')->capture_default_str();
  app.add_option("--op", arguments.workload.operations)->delimiter(',')->capture_default_str();
  app.add_option("--ranks", arguments.ranks)
      ->delimiter(',')
      ->check(CLI::Range(2, 1024))
      ->capture_default_str();
  app.add_option("--bytes", arguments.workload.bytes)->delimiter(',')->capture_default_str();
  app.add_option("--rounds", arguments.rounds)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--repetitions", arguments.workload.repetitions)->capture_default_str();
  app.add_option("--seconds", arguments.workload.seconds)->capture_default_str();
  app.add_flag("--json", arguments.json, "one JSON object per line: each of ours, each peer");
  CLI11_PARSE(app, argc, argv);
  try {
    if (!arguments.json) std::printf("%s\n\n", bench_machine().c_str());
    for (const int ranks : arguments.ranks) compare(arguments, ranks);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "peers_bench: error: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace trireme::peers

int main(int argc, char** argv) { return trireme::peers::run(argc, argv); }

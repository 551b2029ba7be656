// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Who is measured, and by which command line. Each prints the lines of `trireme bench comm --json`.
#pragma once

#include <string>
#include <vector>

#include "trireme/comm/bench/comm_bench.h"

namespace trireme::peers {

// The same for every contender.
struct Workload {
  std::vector<std::string> operations;
  std::vector<std::string> bytes;
  int repetitions = 31;
  double seconds = 0.3;
};

struct Contender {
  std::string name;
  bool ours = false;
  std::vector<std::string> command;  // but for the workload and the ranks
  std::string ranks_option;          // goes before program_at, with the number of ranks
  std::size_t ranks_at = 0;          // index in command
  std::vector<std::string> only;     // operations that it is started for; empty: all
};

// program: trireme. folder: where gloo_peer and mpi_peer are. engines: of ours.
std::vector<Contender> contenders(const std::string& program, const std::string& folder,
                                  const std::vector<std::string>& engines);

// Runs it once, at most five minutes. Nothing where it has none of the operations. Throws Error
// with the command when it fails.
std::vector<CommBenchRow> run_contender(const Contender& contender, const Workload& workload,
                                        int ranks);

}  // namespace trireme::peers

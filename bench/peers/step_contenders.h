// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Who trains, and by which command line: trireme, and PyTorch (torch_step.py) as it comes and as
// its users tune it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/peers/run_command.h"

namespace trireme::peers {

// The same for every contender.
struct StepWorkload {
  std::string model = "gpt2-124m";
  std::string dtype = "f32";
  std::int64_t batch = 4;
  std::int64_t tokens = 256;  // of a sequence
  int threads = 1;
  int steps = 3;
  int warm_up = 2;

  double tokens_per_step() const { return static_cast<double>(batch * tokens); }
};

struct StepContender {
  std::string name;
  bool ours = false;
  Command command;  // but for the workload
};

// What one run of a contender came to.
struct StepResult {
  double median_ms = 0;  // of its timed steps
  double peak_bytes = 0;
  std::string description;  // of a peer: the JSON object of what ran
};

// program: trireme. python: the interpreter that has torch. script: torch_step.py.
std::vector<StepContender> step_contenders(const std::string& program, const std::string& python,
                                           const std::string& script, int threads);

// Runs it once. A peer that fails or takes more than ten minutes is nothing, with a warning; ours
// throws Error.
std::optional<StepResult> run_step_contender(const StepContender& contender,
                                             const StepWorkload& workload);

}  // namespace trireme::peers

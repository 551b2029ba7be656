// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rounds of training steps of several contenders, ours over each peer's round by round.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/peers/step_contenders.h"

namespace trireme::peers {

struct StepSeries {
  std::string name;
  bool ours = false;
  std::string description;                      // of a peer: the JSON object of what ran
  std::vector<std::optional<double>> round_ms;  // nothing: left out
  double peak_bytes = 0;                        // the most of any round

  std::vector<double> ms() const;  // of the rounds that there are
};

struct StepComparison {
  StepWorkload workload;
  std::vector<StepSeries> series;  // ours first

  void add(const StepContender& contender, const std::optional<StepResult>& result);
};

std::string to_table(const StepComparison& comparison);
// One line for each peer that ran.
std::string to_json(const StepComparison& comparison);

}  // namespace trireme::peers

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a run is told of its pipeline: parallel.pipeline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/base/config.h"

namespace trireme {

struct PipelineConfig {
  // A name that plan::generate_schedule() knows, or a CSV file (plan/schedule_file.h).
  std::string schedule = "1f1b";
  std::int64_t chunks = 0;  // stages of each rank; 0: as many as the schedule has
  // Blocks of each stage, in the order of computation; none: cut by `balance`.
  std::vector<std::string> layers;
  std::string balance = "estimate";
  std::int64_t trace_step = 3;  // of a run, whose timeline is written; 0: none

  void visit(ConfigFields& f);
  // pp: ranks of the pipeline. Throws ConfigError.
  void validate(std::int64_t pp) const;
  // Something is said that is of no use without a pipeline.
  bool is_given() const;
  bool is_file() const { return schedule.ends_with(".csv"); }
  // layers as numbers. Throws ConfigError.
  std::vector<std::int64_t> layer_counts() const;
};

}  // namespace trireme

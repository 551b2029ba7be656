// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What trireme simulate prints: tables for people, one JSON object for programs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trireme/train/compare_schedules.h"
#include "trireme/train/memory_estimate.h"

namespace trireme::cli {

struct Simulation {
  std::string mesh;  // "pp=2 dp=2"
  int workers = 1;
  bool measured = false;  // times; else estimated
  // Of a pipeline; none: parallel.pp is 1.
  std::optional<PipelinePlan> plan;
  std::vector<MemorySplit> memory;  // of each rank of the pipeline, or of a worker
  std::vector<ScheduleOutlook> schedules;
};

// width: of the picture, columns.
std::string simulation_text(const Simulation& simulation, int width, bool colour);
std::string simulation_json(const Simulation& simulation);

}  // namespace trireme::cli

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the schedules that Trireme knows would make of a run: for who looks for the best one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/train/parameter_memory.h"
#include "trireme/train/pipeline_plan.h"

namespace trireme {

struct ScheduleOutlook {
  std::string name;
  bool chosen = false;  // config's own
  std::string refused;  // why it cannot be; empty: it can
  double step_us = 0;
  double bubble = 0;            // of all ranks, 0 .. 1
  std::int64_t peak_bytes = 0;  // of the rank that needs most
};

// Of all ranks together, 0 .. 1.
double bubble_of(const plan::ScheduleReport& report);

// One for each that trains, in the order of plan::schedule_names(), and config's own where it is a
// file. Blocks of stages as config has them, where a schedule has as many stages. As
// plan_pipeline() else.
std::vector<ScheduleOutlook> compare_schedules(const TrainConfig& config, const JobShape& job,
                                               int dp, const LayerTimes& times);

}  // namespace trireme

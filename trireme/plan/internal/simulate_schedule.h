// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The event simulation behind verify_schedule.h, which says what it assumes.
#pragma once

#include <vector>

#include "trireme/plan/internal/schedule_index.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme::plan {

// The index's schedule has passed check_rules(); costs: one for each stage. Throws ConfigError for
// ranks that wait for one another.
ScheduleReport simulate_schedule(const ScheduleIndex& positions,
                                 const std::vector<StageCosts>& costs, int max_receives);

}  // namespace trireme::plan

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What can be said of a schedule without running it: each rank's list against the rules of
// verify_schedule.h. Whether the ranks together come to an end is for the simulation.
#pragma once

#include "trireme/plan/internal/schedule_index.h"

namespace trireme::plan {

// Throws ConfigError for the first rule that is broken. tied: SEND_T and RECV_T must be there.
void check_rules(const ScheduleIndex& index, bool tied);

// Whether the first and the last stage exchange gradients of a matrix that they share.
bool exchanges_tied(const ScheduleIndex& index);

}  // namespace trireme::plan

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The timeline of a step that a pipeline has run: the spans of all its ranks, in the form that
// simulated ones have (plan/timeline_trace.h), with what a rank waited for in a lane of its own.
#pragma once

#include <string>
#include <vector>

#include "trireme/parallel/pipeline/pipeline_executor.h"
#include "trireme/plan/timeline_trace.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme {

class Group;

// What this rank's instructions with a micro-batch took. The wait has the instruction's name.
std::vector<plan::TraceSpan> timeline_of(int rank, const std::vector<InstructionSpan>& spans);

// Of all ranks of pp, on each of them; times since each rank's run began. run: of the schedule.
// Collective, blocking.
std::vector<plan::TraceSpan> gather_timeline(const plan::Schedule& schedule, const PipelineRun& run,
                                             Group& pp);

// Writes a Chrome trace, and logs the bubble of the timeline beside that of the plan's report.
// Throws CheckpointError.
void write_timeline(const std::string& file, const std::vector<plan::TraceSpan>& spans,
                    const plan::ScheduleReport& planned);

}  // namespace trireme

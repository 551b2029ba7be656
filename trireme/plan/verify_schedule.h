// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Proves that a schedule computes a step, and says what it costs, before anything runs.
//
// Proven: every micro-batch passes every stage once, on the rank that has the stage, forward and
// then backward, either whole or as I and W; the forwards, the backwards of the input, those of the
// weights, and the messages of each kind of a stage are in ascending order of micro-batches
// (gradients are summed in that order); each send has its receive and the other way round; UNSHARD,
// RESHARD, REDUCE_GRAD and STEP are where they must be; and the ranks, each in its own order, never
// wait for one another in a ring.
//
// The last is a simulation of the executor: a send starts and never blocks; a receive starts when
// it is reached, but not before that of max_receives earlier has arrived; the compute that needs it
// waits for its arrival, send_us after both have started. REDUCE_GRAD of the last stage waits for
// the tied gradients. Instructions that neither compute nor exchange take no time. Each waits for
// something definite, so whether a rank waits for ever is the same whatever the costs.
//
// A schedule of compute instructions only is verified by what its instructions need of one another;
// what comes from another rank comes send_us after it was computed.
//
//   const ScheduleReport report = verify_schedule(schedule, {}, {});
//   report.ranks[0].bubble;    // share of the step that rank 0 idles
#pragma once

#include <cstdint>
#include <vector>

#include "trireme/plan/schedule.h"

namespace trireme::plan {

// Of one stage and one micro-batch. The defaults are the unit costs of the papers.
struct StageCosts {
  double forward_us = 1;
  double backward_input_us = 1;
  double backward_weight_us = 1;        // B takes backward_input_us + backward_weight_us
  double send_us = 0;                   // from this stage to either neighbour
  std::int64_t activation_bytes = 0;    // held from F until the end of I or B
  std::int64_t weight_work_bytes = 0;   // held from the end of I until the end of W
  std::int64_t boundary_bytes = 0;      // what F sends on; the gradient that comes back is as large
  std::int64_t weight_bytes = 0;        // of the whole stage, held always
  std::int64_t forward_work_bytes = 0;  // held while F runs, beside the above
  std::int64_t backward_work_bytes = 0;  // held while B or I runs; in I at least all for W
  // Of the last stage, whose matrix the first one shares: held from F until the tied gradients of
  // the micro-batch have come and the next compute is done.
  std::int64_t tied_bytes = 0;
};

struct VerifyOptions {
  int max_receives = 16;  // of one rank, open at a time
  bool tied = false;      // SEND_T and RECV_T must be there; if they are, they are checked anyway
};

// One instruction's time. A send or receive spans from its start to the data's arrival.
struct Span {
  Instruction instruction;
  double start_us = 0;
  double end_us = 0;
};

struct RankReport {
  double busy_us = 0;           // computing
  double idle_us = 0;           // the rest of the step
  double bubble = 0;            // idle_us as a share of the step, 0 .. 1
  std::int64_t peak_bytes = 0;  // the most memory at any time, weights included
  std::vector<Span> timeline;   // one for each of the rank's instructions, in their order
};

struct ScheduleReport {
  double step_us = 0;  // until the last rank is done
  std::vector<RankReport> ranks;
};

// costs: one for each stage; none: the defaults for all. Memory is what the costs name, and
// boundary_bytes for each open receive until the compute that needs it ends, for each send until it
// has arrived, and for what goes from stage to stage of one rank until it has been used. Cost: O(n
// log n) of the schedule's n instructions. Throws ConfigError with the rank, the position in its
// list (from 0), the instruction and what is wrong with it; of ranks that wait for one another,
// where each stands and what for; costs or options that make no sense.
ScheduleReport verify_schedule(const Schedule& schedule, const std::vector<StageCosts>& costs,
                               const VerifyOptions& options);

}  // namespace trireme::plan

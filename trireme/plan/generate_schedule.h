// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Makes the schedules that Trireme knows by name.
//
// For p ranks, m micro-batches, v chunks on a rank; F, I, W the times of a stage's passes, B = I+W.
// Idle is what a rank waits in a step, stored the most forwards of a stage whose gradients are not
// done, each for m of at least 2p (interleaved's stored for multiples of p):
//
//   name         stages on rank r      backward  idle of a rank      stored on rank r
//   gpipe        r                     B         (p-1)(F+B)          m
//   1f1b         r                     B         (p-1)(F+B)          p-r
//   interleaved  r, r+p, .. r+(v-1)p   B         (p-1)(F+B)          at most (v+1)p-1-2r
//   zb-h1        r                     I and W   (p-1)(F+I-W)        at most p
//   zbv          r and 2p-1-r          I and W   p-1 if F=I=W=1      at most 2p
//   dualpipev    r and 2p-1-r          all       p-1 if F=I=W=1      at most 2p+1
//   streaming    r                     none      (p-1)F              0: inference
//
// A stage of interleaved, zbv and dualpipev is a part 1/v of what a rank holds, and so are its
// times. The report of DualPipe has (p-1)(F&B+B-3W), where F&B is a forward beside a backward whose
// results leave together; here each leaves when it is done.
//
// The orders are those of GPipe (Huang et al. 2019), PipeDream-Flush and Megatron-LM (Narayanan et
// al. 2021), zero bubble (Qi et al. 2023), its V form (Qi et al. 2024) and DualPipe cut in half
// (DeepSeek 2025). All but the last come out of one event simulation with a small policy for each
// name. zb-h1 and zbv have several orders, of which given stage times decide.
//
//   const Schedule schedule =
//       with_communication(generate_schedule({.name = "1f1b", .ranks = 4, .micro_batches = 8}),
//       {});
//
// Pure; any thread may call all of this.
#pragma once

#include <string>
#include <vector>

#include "trireme/plan/schedule.h"

namespace trireme::plan {

// In any unit: only their ratios count.
struct StageTimes {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;  // a whole backward takes both
};

struct ScheduleRequest {
  std::string name = "1f1b";
  int ranks = 1;
  int micro_batches = 1;
  int chunks = 1;  // stages on a rank, for interleaved; the others have their own number
  std::vector<StageTimes> times = {};  // one for each stage; none: all equal
};

// Names that generate_schedule() knows, in the order of the table above.
const std::vector<std::string>& schedule_names();

// How many stages a schedule of this name has on each rank, and where they are: the rank of each
// stage. Throws ConfigError as generate_schedule() does.
std::vector<int> rank_of_stage(const ScheduleRequest& request);

// Compute instructions only. Cost: O(p n) of its n instructions. Throws ConfigError: an unknown
// name; ranks, micro_batches or chunks below 1, or more
// than 2^24 stages times micro-batches; chunks that the schedule does not have; times that
// are not one for each stage, or not above 0.
Schedule generate_schedule(const ScheduleRequest& request);

struct CommunicationOptions {
  bool tied = false;    // the first and the last stage share a matrix: SEND_T and RECV_T
  bool gather = false;  // the stages' weights are sharded: UNSHARD and RESHARD
  bool train = true;    // REDUCE_GRAD and STEP
};

// The schedule with what ranks exchange, and with what is done for the whole step.
//
// A send stands right after its compute, a receive one compute instruction before the one that
// needs it, so that the transfer overlaps with that. Between stages of one rank there is neither.
// RECV_T stands where its data are expected; the gradient is of stage 0's B or I. If one rank has
// the first and the last stage, there is no SEND_T: who runs the schedule adds the gradients
// itself. UNSHARD stands one compute instruction before the stage's first, RESHARD after its last,
// REDUCE_GRAD after its last B or W and its last RECV_T, STEP at the end. Throws ConfigError: the
// schedule has such instructions already; train without a backward pass, or a backward pass without
// train; a schedule that cannot run.
Schedule with_communication(const Schedule& schedule, const CommunicationOptions& options);

}  // namespace trireme::plan

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// PipelineExecutor: does what a schedule (plan/schedule.h) has for this rank.
//
//   PipelineExecutor executor(*pp, stages);                      // by number, this rank's
//   const plan::Schedule schedule = with_communication(generate_schedule(...), {});
//   verify_schedule(schedule, ...);
//   const PipelineRun run = executor.run(schedule);
//   run.losses;                                                  // of each micro-batch
//
// A forward pass makes a graph of its stage alone: what comes from the stage before is a leaf of
// it. Once its outputs have left, of the forward pass is kept what autograd has saved, until the
// backward pass, or of one in two parts, each part, is done (ops/split_backward.h).
//
//   rank 0   0F0 0F1 ..        0B0          activations ->
//   rank 1       1F0 1B0 1F1 1B1            <- gradients of them
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "trireme/parallel/pipeline/stage.h"
#include "trireme/plan/schedule.h"

namespace trireme {

class Group;

// When an instruction was done, since the run began. [start_us, ready_us): it waited for what it
// needs.
struct InstructionSpan {
  plan::Instruction instruction;
  double start_us = 0;
  double ready_us = 0;
  double end_us = 0;
};

struct PipelineRun {
  // By micro-batch: the sum of what this rank's stages have as losses.
  std::vector<double> losses;
  std::vector<InstructionSpan> spans;  // in the order of the schedule

  // Time in which this rank computed.
  double busy_us() const;
};

// Not thread-safe. All ranks of the group make one and call run() alike.
class PipelineExecutor {
 public:
  // pp: the ranks of the pipeline, by their numbers in schedules. stages: this rank's, by number;
  // their gradients are undefined or zeros before a run. Collective, moves no bytes.
  PipelineExecutor(Group& pp, std::map<int, Stage> stages);
  // In the middle of a run, or after one that has thrown, it ends the world by Group::abandon().
  ~PipelineExecutor();
  PipelineExecutor(PipelineExecutor&&) noexcept;

  // Runs what schedule has for this rank; a verified one (plan/verify_schedule.h), with
  // communication, the same on all ranks. Without backward passes in it nothing has a gradient.
  // STEP is the caller's to do. Collective, blocking.
  //
  // Throws ConfigError for a schedule of other ranks or stages; what a stage throws, after
  // Group::abandon() has told the others; CommError as Group does, with what this rank was at and
  // whom it waited for, and of a lost rank its stages and what it had to do; Error after a run that
  // has thrown.
  PipelineRun run(const plan::Schedule& schedule);

  // Payload that this rank has sent so far to other stages.
  std::int64_t bytes_sent() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme

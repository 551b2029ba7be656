// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A pipeline's schedule as data: for each rank, what it does in a step, in order.
//
// A model is cut into stages, numbered 0 .. S-1 in the order of computation. A rank of the pipeline
// holds one or more of them, its chunks. A step has micro-batches 0 .. m-1; each passes forward
// through every stage and its gradient comes back. The backward pass of a stage is either whole (B)
// or in two parts, which need not follow each other: the gradient of the stage's input (I), for
// which the stage before waits, and that of its weights (W), for which nobody does.
//
//   2F4          stage 2, forward of micro-batch 4        2B4  2I4  2W4   its backward
//   2SEND_F4     leaves for stage 3: what 2F4 computed    2RECV_F4   what 2F4 needs, from stage 1
//   2SEND_B4     leaves for stage 1: what 2B4 computed    2RECV_B4   what 2B4 needs, from stage 3
//   0SEND_T4     the gradient of a matrix that the first and the last stage share, to the last
//   7RECV_T4     it arrives there
//   2UNSHARD     gathers the stage's weights (ZeRO-3)     2RESHARD   lets them go
//   2REDUCE_GRAD the stage's gradients are complete: they may be reduced over the replicas
//   STEP         the optimizer's step of all the rank's stages
//
// generate_schedule.h makes schedules, verify_schedule.h proves them, schedule_file.h reads them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trireme::plan {

enum class Action {
  kForward,
  kBackward,
  kBackwardInput,
  kBackwardWeight,
  kSendActivation,
  kReceiveActivation,
  kSendGradient,
  kReceiveGradient,
  kSendTied,
  kReceiveTied,
  kGather,
  kRelease,
  kReduce,
  kStep,
};

// "F", "RECV_B", "UNSHARD", ...
std::string_view to_string(Action action);

// F, B, I and W.
bool is_compute(Action action);
bool is_send(Action action);
bool is_receive(Action action);
// Compute, sends and receives; the others are of the whole step.
bool has_micro_batch(Action action);

struct Instruction {
  Action action = Action::kStep;
  int stage = -1;        // the stage that acts; -1 for kStep
  int micro_batch = -1;  // -1 where there is none

  bool operator==(const Instruction&) const = default;
};

// "2RECV_F4".
std::string to_string(const Instruction& instruction);
// The reverse; nothing for text that is no instruction. A stage and a micro-batch are below 10^9.
std::optional<Instruction> parse_instruction(std::string_view text);

struct Schedule {
  std::string name = {};
  int ranks = 0;
  std::vector<int> rank_of_stage = {};  // one for each stage
  int micro_batches = 0;
  std::vector<std::vector<Instruction>> of_rank = {};  // what each rank does, in order

  int stages() const { return static_cast<int>(rank_of_stage.size()); }
  bool operator==(const Schedule&) const = default;
};

// The stages that the rank holds, ascending.
std::vector<int> stages_of_rank(const std::vector<int>& rank_of_stage, int rank);

// Whether any instruction is a B, I or W.
bool has_backward(const Schedule& schedule);
// Whether all instructions are compute: with_communication() has not been there.
bool only_compute(const Schedule& schedule);

}  // namespace trireme::plan

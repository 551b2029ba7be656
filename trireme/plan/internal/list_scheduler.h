// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A list scheduler: the event simulation that most schedules come out of.
//
// Each rank, whenever it is free, takes of the instructions that could start then the one that its
// policy likes best; what came from another rank took no time. So nothing waits that could run, but
// for what the policy forbids. Each stage's instructions are in ascending order of micro-batches.
#pragma once

#include <limits>
#include <vector>

#include "trireme/plan/generate_schedule.h"
#include "trireme/plan/schedule.h"

namespace trireme::plan {

inline constexpr int kNoLimit = std::numeric_limits<int>::max();

struct Policy {
  std::vector<int> rank_of_stage = {};
  bool backward = true;         // false: forward only
  bool split_backward = false;  // I and W instead of B

  // Of what could start at the same time, the first of these is taken; kBackwardInput stands for B
  // too. last_order, if any, is that of a rank whose forwards are all done.
  std::vector<Action> order = {Action::kBackwardInput, Action::kForward, Action::kBackwardWeight};
  std::vector<Action> last_order = {};
  // Of several of one action, that of the latest stage; else the one that has waited longest.
  bool later_stage_first = false;
  // But first of all, of backwards, that of the chunk of the rank's latest forward, and then that
  // of the rank's other chunk.
  bool chunks_take_turns = false;

  // No backward before the rank's max_stored is reached or its forwards are all done.
  bool fill_first = false;
  // The micro-batches of each round. A rank takes a round's micro-batches through its first chunk,
  // then through its next, and on the way back from the last to the first, and waits rather than
  // leave that order. None: any order.
  std::vector<int> rounds = {};

  // Limits of each rank: forwards whose B or I is not done; whose B or W is not done.
  std::vector<int> max_waiting = {};
  std::vector<int> max_stored = {};
  // Forwards of the rank's first chunk that its last chunk has not followed yet.
  std::vector<int> max_ahead = {};
};

// What each rank does. times: one for each stage. An empty list of limits is no limit.
std::vector<std::vector<Instruction>> list_schedule(const Policy& policy, int micro_batches,
                                                    const std::vector<StageTimes>& times);

}  // namespace trireme::plan

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the verifier counts as a rank's memory beside stored micro-batches and messages.

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "trireme/plan/schedule_file.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme::plan {
namespace {

// Of rows of instructions with spaces between them.
Schedule schedule(const std::vector<std::string>& ranks) {
  std::string csv;
  for (const std::string& row : ranks) csv += row + "\n";
  std::replace(csv.begin(), csv.end(), ' ', ',');
  std::istringstream input(csv);
  return read_schedule(input, "mine", "mine.csv");
}

// What a pass takes while it runs, and what waits for the tied gradients of the other end.
TEST(ScheduleMemory, CountsTheWorkOfPassesAndTiedGradients) {
  const Schedule mine = schedule(
      {"0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0SEND_T0 0RECV_B1 0B1 0SEND_T1 0REDUCE_GRAD STEP",
       "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_T0 1RECV_F1 1F1 1B1 1SEND_B1 1RECV_T1 1REDUCE_GRAD STEP"});
  std::vector<StageCosts> costs = {{.activation_bytes = 100},
                                   {.activation_bytes = 300, .tied_bytes = 7000}};
  const auto peak = [&](int rank) {
    return verify_schedule(mine, costs, {.tied = true})
        .ranks[static_cast<std::size_t>(rank)]
        .peak_bytes;
  };
  // The gradients of both micro-batches wait when the second one goes forward.
  EXPECT_EQ(peak(1), 300 + 2 * 7000);
  costs[0].backward_input_us = costs[0].backward_weight_us = 0;
  EXPECT_EQ(peak(1), 300 + 2 * 7000) << "the first one comes as the second forward begins";
  costs[0].backward_input_us = costs[0].backward_weight_us = 1;
  costs[0].forward_work_bytes = 10;
  EXPECT_EQ(peak(0), 2 * 100 + 10);
  costs[0].backward_work_bytes = 20;
  EXPECT_EQ(peak(0), 2 * 100 + 20) << "the first backward pass, with both micro-batches stored";
}

TEST(ScheduleMemory, CountsInABackwardOfTheInputTheLarger) {
  const Schedule mine = schedule({"0F0 0I0 0W0 0REDUCE_GRAD STEP"});
  StageCosts cost{.activation_bytes = 100, .weight_work_bytes = 90, .backward_work_bytes = 5};
  EXPECT_EQ(verify_schedule(mine, {cost}, {}).ranks[0].peak_bytes, 105);
  cost.weight_work_bytes = 130;
  EXPECT_EQ(verify_schedule(mine, {cost}, {}).ranks[0].peak_bytes, 130);
  // The gradient that came is held as long as I runs.
  const Schedule two = schedule({"0F0 0SEND_F0 0RECV_B0 0I0 0W0 0REDUCE_GRAD STEP",
                                 "1RECV_F0 1F0 1B0 1SEND_B0 1REDUCE_GRAD STEP"});
  cost.boundary_bytes = 7;
  EXPECT_EQ(verify_schedule(two, {cost, {}}, {}).ranks[0].peak_bytes, 130 + 7);
}

// Between stages of a rank what one hands to the other is held until it has been used.
TEST(ScheduleMemory, CountsWhatStagesOfARankHandOver) {
  const Schedule mine = schedule({"0F0 1F0 1B0 0B0 0REDUCE_GRAD 1REDUCE_GRAD STEP"});
  std::vector<StageCosts> costs = {{.activation_bytes = 100, .boundary_bytes = 10},
                                   {.activation_bytes = 300}};
  EXPECT_EQ(verify_schedule(mine, costs, {}).ranks[0].peak_bytes, 100 + 300 + 10);
  costs[0].backward_work_bytes = 500;
  EXPECT_EQ(verify_schedule(mine, costs, {}).ranks[0].peak_bytes, 100 + 500 + 10);
}

}  // namespace
}  // namespace trireme::plan

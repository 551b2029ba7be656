// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace trireme::plan {
namespace {

using ::testing::ElementsAre;

TEST(Instruction, HasATextForm) {
  const std::vector<std::pair<Instruction, std::string>> cases = {
      {{Action::kForward, 0, 3}, "0F3"},
      {{Action::kBackward, 12, 0}, "12B0"},
      {{Action::kBackwardInput, 1, 10}, "1I10"},
      {{Action::kBackwardWeight, 1, 10}, "1W10"},
      {{Action::kSendActivation, 2, 4}, "2SEND_F4"},
      {{Action::kReceiveActivation, 3, 4}, "3RECV_F4"},
      {{Action::kSendGradient, 3, 5}, "3SEND_B5"},
      {{Action::kReceiveGradient, 2, 5}, "2RECV_B5"},
      {{Action::kSendTied, 0, 6}, "0SEND_T6"},
      {{Action::kReceiveTied, 7, 6}, "7RECV_T6"},
      {{Action::kGather, 0, -1}, "0UNSHARD"},
      {{Action::kRelease, 5, -1}, "5RESHARD"},
      {{Action::kReduce, 5, -1}, "5REDUCE_GRAD"},
      {{Action::kStep, -1, -1}, "STEP"},
      {{Action::kForward, 999999999, 999999999}, "999999999F999999999"},
  };
  for (const auto& [instruction, text] : cases) {
    EXPECT_EQ(to_string(instruction), text);
    EXPECT_EQ(parse_instruction(text), instruction) << text;
  }
}

TEST(Instruction, IsNotReadFromOtherText) {
  for (const char* text : {"",
                           "F",
                           "0F",
                           "F3",
                           "0G3",
                           "0f3",
                           " 0F3",
                           "0F3 ",
                           "0F3x",
                           "0F3I4",
                           "-1F3",
                           "0F-1",
                           "0STEP",
                           "STEP0",
                           "UNSHARD",
                           "0UNSHARD1",
                           "0REDUCE_GRAD2",
                           "0RECV_F",
                           "1234567890F0",
                           "0F1234567890",
                           "0SEND_",
                           "00"}) {
    EXPECT_EQ(parse_instruction(text), std::nullopt) << text;
  }
}

TEST(Schedule, KnowsTheStagesOfARank) {
  const std::vector<int> placement = {0, 1, 2, 2, 1, 0};
  EXPECT_THAT(stages_of_rank(placement, 0), ElementsAre(0, 5));
  EXPECT_THAT(stages_of_rank(placement, 1), ElementsAre(1, 4));
  EXPECT_THAT(stages_of_rank(placement, 3), ElementsAre());
}

TEST(Schedule, KnowsWhatIsInIt) {
  Schedule schedule{.ranks = 2, .rank_of_stage = {0, 1}, .micro_batches = 1};
  schedule.of_rank = {{{Action::kForward, 0, 0}}, {{Action::kForward, 1, 0}}};
  EXPECT_FALSE(has_backward(schedule));
  EXPECT_TRUE(only_compute(schedule));
  schedule.of_rank[1].push_back({Action::kBackwardWeight, 1, 0});
  EXPECT_TRUE(has_backward(schedule));
  schedule.of_rank[0].push_back({Action::kReduce, 0, -1});
  EXPECT_FALSE(only_compute(schedule));
}

}  // namespace
}  // namespace trireme::plan

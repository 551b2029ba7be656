// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/verify_schedule.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"
#include "trireme/plan/generate_schedule.h"

namespace trireme::plan {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using trireme::testing::failure_of;

std::size_t at(int number) { return static_cast<std::size_t>(number); }

std::vector<Instruction> list(const std::string& text) {
  std::vector<Instruction> result;
  std::istringstream words(text);
  for (std::string word; words >> word;) result.push_back(parse_instruction(word).value());
  return result;
}

Schedule schedule(std::vector<int> placement, int micro_batches,
                  const std::vector<std::string>& ranks) {
  Schedule result{.name = "mine",
                  .ranks = static_cast<int>(ranks.size()),
                  .rank_of_stage = std::move(placement),
                  .micro_batches = micro_batches};
  for (const std::string& text : ranks) result.of_rank.push_back(list(text));
  return result;
}

std::string refusal(const Schedule& schedule, const VerifyOptions& options = {}) {
  return failure_of([&] { verify_schedule(schedule, {}, options); });
}

std::string spans(const RankReport& rank) {
  std::string text;
  for (const Span& span : rank.timeline) {
    text += fmt::format("{} {}-{}\n", to_string(span.instruction), span.start_us, span.end_us);
  }
  return text;
}

// Stage 0 forwards in 2 us and sends in 5; stage 1 forwards in 3, goes back in 4 + 1 and sends
// in 7.
const std::vector<StageCosts> kTwoStages = {{.forward_us = 2,
                                             .backward_input_us = 1,
                                             .backward_weight_us = 6,
                                             .send_us = 5,
                                             .activation_bytes = 100,
                                             .boundary_bytes = 10,
                                             .weight_bytes = 1000},
                                            {.forward_us = 3,
                                             .backward_input_us = 4,
                                             .backward_weight_us = 1,
                                             .send_us = 7,
                                             .activation_bytes = 300,
                                             .weight_work_bytes = 40,
                                             .weight_bytes = 5000}};

TEST(VerifySchedule, SaysWhenEachInstructionRunsAndWhatItCosts) {
  const Schedule mine =
      schedule({0, 1}, 2,
               {"0F0 0SEND_F0 0RECV_B0 0F1 0SEND_F1 0B0 0RECV_B1 0B1 0REDUCE_GRAD STEP",
                "1RECV_F0 1F0 1RECV_F1 1I0 1SEND_B0 1F1 1W0 1I1 1SEND_B1 1W1 1REDUCE_GRAD STEP"});
  const ScheduleReport report = verify_schedule(mine, kTwoStages, {});
  // Rank 0: 2 + 2 until its forwards are sent; the first gradient is sent at 14 and arrives at 21.
  EXPECT_EQ(spans(report.ranks[0]),
            "0F0 0-2\n0SEND_F0 2-7\n0RECV_B0 2-21\n0F1 2-4\n0SEND_F1 4-15\n0B0 21-28\n"
            "0RECV_B1 28-35\n0B1 35-42\n0REDUCE_GRAD 42-42\nSTEP 42-42\n");
  // The second activation's receive starts after the first forward, at 10, and so arrives at 15.
  EXPECT_EQ(spans(report.ranks[1]),
            "1RECV_F0 0-7\n1F0 7-10\n1RECV_F1 10-15\n1I0 10-14\n1SEND_B0 14-21\n1F1 15-18\n"
            "1W0 18-19\n1I1 19-23\n1SEND_B1 23-35\n1W1 23-24\n1REDUCE_GRAD 24-24\nSTEP 24-24\n");
  EXPECT_EQ(report.step_us, 42);
  EXPECT_EQ(report.ranks[0].busy_us, 2 + 2 + 7 + 7);
  EXPECT_EQ(report.ranks[0].idle_us, 24);
  EXPECT_DOUBLE_EQ(report.ranks[0].bubble, 24.0 / 42);
  EXPECT_EQ(report.ranks[1].busy_us, 3 + 3 + 5 + 5);
  // Rank 0 at 4: both activations, both sends and the receive of the first gradient.
  EXPECT_EQ(report.ranks[0].peak_bytes, 1000 + 2 * 100 + 2 * 10 + 10);
  // Rank 1 at 15: the second activation and what it arrived in; of the first one, work for the
  // weights, and the gradient that is on its way.
  EXPECT_EQ(report.ranks[1].peak_bytes, 5000 + 300 + 10 + 40 + 10);
}

// A gradient that came early is held until the backward that needs it ends.
TEST(VerifySchedule, CountsWhatArrivedAndWaits) {
  const Schedule mine =
      schedule({0, 1}, 2,
               {"0F0 0SEND_F0 0RECV_B0 0F1 0SEND_F1 0RECV_B1 0B0 0B1 0REDUCE_GRAD STEP",
                "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1REDUCE_GRAD STEP"});
  const std::vector<StageCosts> costs = {
      {.forward_us = 20, .send_us = 1, .activation_bytes = 100, .boundary_bytes = 10},
      {.send_us = 1}};
  // At 40, rank 0 has both activations and both receives, and sends the second activation.
  EXPECT_EQ(verify_schedule(mine, costs, {}).ranks[0].peak_bytes, 2 * 100 + 2 * 10 + 10);
}

TEST(VerifySchedule, CountsTransfersBetweenRanksWhenNoneAreListed) {
  const Schedule mine = schedule({0, 1}, 1, {"0F0 0B0", "1F0 1I0 1W0"});
  const ScheduleReport report = verify_schedule(mine, kTwoStages, {});
  EXPECT_EQ(spans(report.ranks[1]), "1F0 7-10\n1I0 10-14\n1W0 14-15\n");
  EXPECT_EQ(spans(report.ranks[0]), "0F0 0-2\n0B0 21-28\n");
}

TEST(VerifySchedule, WaitsForTheTiedGradients) {
  const Schedule mine = schedule({0, 1}, 1,
                                 {"0RECV_B0 0F0 0SEND_F0 0B0 0SEND_T0 0REDUCE_GRAD STEP",
                                  "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_T0 1REDUCE_GRAD STEP"});
  const ScheduleReport report = verify_schedule(mine, kTwoStages, {.tied = true});
  EXPECT_THAT(spans(report.ranks[1]), HasSubstr("1RECV_T0 15-34\n1REDUCE_GRAD 34-34\n"));
}

struct Broken {
  std::vector<std::string> ranks;
  std::string message;
};

// One step of two stages and two micro-batches.
TEST(VerifySchedule, NamesWhatIsWrongAndWhere) {
  const std::vector<Broken> cases = {
      {{"0F0 0F1 0B0", "1F0 1B0 1F1 1B1"}, "rank 0 has no 0B1, nor 0I1"},
      {{"0F0 0F1 0B0 0B1", "1F0 1B0 1B1"}, "rank 1 has no 1F1"},
      {{"0F0 0F1 0B0 0B1 0B0", "1F0 1B0 1F1 1B1"},
       "rank 0, position 4, 0B0: again, after position 2"},
      {{"0F0 0F1 0I0 0W0 0I1", "1F0 1B0 1F1 1B1"}, "rank 0 has no 0W1, but its I"},
      {{"0F0 0F1 0I0 0W0 0W1", "1F0 1B0 1F1 1B1"}, "rank 0 has no 0I1, but its W"},
      {{"0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1B1 1W1"},
       "rank 1, position 3, 1B1: the backward is whole here and 1W1 at position 4"},
      {{"0F0 0F1 0W0 0I0 0B1", "1F0 1B0 1F1 1B1"},
       "rank 0, position 2, 0W0: before 0I0, position 3"},
      {{"0F0 0B1 0F1 0B0", "1F0 1B0 1F1 1B1"}, "rank 0, position 1, 0B1: before 0F1, position 2"},
      {{"0F0 0F1 0B1 0B0", "1F0 1F1 1B1 1B0"},
       "rank 0, position 3, 0B0: after 0B1, position 2; a stage's micro-batches must ascend"},
      {{"0F0 0F1 0I0 0B1 0W0", "1F0 1F1 1B0 1B1"},
       "rank 0, position 4, 0W0: after 0B1, position 3; a stage's micro-batches must ascend"},
      {{"0F0 0F1 0B0 1B1", "1F0 1B0 1F1 0B1"}, "rank 0, position 3, 1B1: stage 1 is on rank 1"},
      {{"0F0 0F1 0B0 0B2", "1F0 1B0 1F1 1B1"},
       "rank 0, position 3, 0B2: the micro-batches are 0 to 1"},
      {{"0F0 0F1 0B0 7B1", "1F0 1B0 1F1 1B1"}, "rank 0, position 3, 7B1: the stages are 0 to 1"},
      {{"0B0 0F0", "1F0"}, "rank 0, position 0, 0B0: before 0F0, position 1"},
  };
  for (const Broken& broken : cases) {
    EXPECT_THAT(refusal(schedule({0, 1}, 2, broken.ranks)),
                StartsWith("ConfigError: schedule mine: " + broken.message));
  }
}

// The same for messages and for what is of the whole step; one micro-batch.
TEST(VerifySchedule, NamesMessagesThatDoNotMeetAndStepsOutOfPlace) {
  const std::string first =
      "0UNSHARD 0F0 0SEND_F0 0RECV_B0 0B0 0SEND_T0 0RESHARD 0REDUCE_GRAD STEP";
  const std::string second =
      "1UNSHARD 1RECV_F0 1F0 1B0 1SEND_B0 1RESHARD 1RECV_T0 1REDUCE_GRAD STEP";
  EXPECT_EQ(refusal(schedule({0, 1}, 1, {first, second})), "no error");
  const std::vector<std::tuple<int, std::string, std::string, std::string>> cases = {
      {0, "0SEND_F0 ", "", "rank 0 has no 0SEND_F0 for 1RECV_F0"},
      {1, "1RECV_F0 ", "", "rank 1 has no 1RECV_F0 for 0SEND_F0"},
      {0, "0RECV_B0 ", "", "rank 0 has no 0RECV_B0 for 1SEND_B0"},
      {1, "1SEND_B0 ", "", "rank 1 has no 1SEND_B0 for 0RECV_B0"},
      {0, "0SEND_T0 ", "", "rank 0 has no 0SEND_T0 for 1RECV_T0"},
      {1, "1RECV_T0 ", "", "rank 1 has no 1RECV_T0 for 0SEND_T0"},
      {0, "0F0 0SEND_F0", "0SEND_F0 0F0", "rank 0, position 1, 0SEND_F0: before 0F0, position 2"},
      {1, "1RECV_F0 1F0", "1F0 1RECV_F0", "rank 1, position 1, 1F0: before 1RECV_F0, position 2"},
      {1, "1RECV_F0", "1RECV_F0 1SEND_F0",
       "rank 1, position 2, 1SEND_F0: nothing for it to meet on another rank"},
      {1, "1F0 1B0 1SEND_B0 1RESHARD 1RECV_T0", "1F0 1RECV_T0 1B0 1SEND_B0 1RESHARD",
       "rank 1, position 3, 1RECV_T0: before 1B0, position 4"},
      {1, "1RECV_T0 1REDUCE_GRAD", "1REDUCE_GRAD 1RECV_T0",
       "rank 1, position 6, 1REDUCE_GRAD: before 1RECV_T0, position 7"},
      {0, "0UNSHARD ", "",
       "rank 0, position 0, 0F0: the stage's weights are not there: no UNSHARD"},
      {0, "0UNSHARD ", "0UNSHARD 0UNSHARD ", "rank 0, position 1, 0UNSHARD: the weights are there"},
      {0, "0RESHARD ", "", "rank 0 has no 0RESHARD after its last 0UNSHARD"},
      {0, "0RESHARD ", "0RESHARD 0RESHARD ", "rank 0, position 7, 0RESHARD: without an UNSHARD"},
      {0, "0B0 0SEND_T0 0RESHARD", "0RESHARD 0B0 0SEND_T0",
       "rank 0, position 5, 0B0: the stage's weights are not there"},
      {0, "0B0 0SEND_T0 0RESHARD 0REDUCE_GRAD", "0REDUCE_GRAD 0B0 0SEND_T0 0RESHARD",
       "rank 0, position 4, 0REDUCE_GRAD: before the stage's last B or W"},
      {0, "0REDUCE_GRAD ", "", "rank 0, position 7, STEP: no 0REDUCE_GRAD before it"},
      {0, "0REDUCE_GRAD", "0REDUCE_GRAD 0REDUCE_GRAD",
       "rank 0, position 8, 0REDUCE_GRAD: again, after position 7"},
      {0, " STEP", "", "rank 0 does not end with STEP, but with 0REDUCE_GRAD"},
      {0, "0RESHARD 0REDUCE_GRAD STEP", "STEP 0RESHARD 0REDUCE_GRAD",
       "rank 0, position 6, STEP: it must be the rank's last"},
  };
  for (const auto& [rank, from, to, message] : cases) {
    std::vector<std::string> ranks = {first, second};
    std::string& text = ranks[at(rank)];
    ASSERT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), from.size(), to);
    EXPECT_THAT(refusal(schedule({0, 1}, 1, ranks)),
                StartsWith("ConfigError: schedule mine: " + message));
  }
}

TEST(VerifySchedule, WantsTiedGradientsWhereTheyAreAskedFor) {
  const Schedule untied =
      with_communication(generate_schedule({.name = "1f1b", .ranks = 3, .micro_batches = 2}), {});
  EXPECT_EQ(refusal(untied), "no error");
  EXPECT_EQ(refusal(untied, {.tied = true}),
            "ConfigError: schedule 1f1b: rank 0 has no 0SEND_T0 for 2RECV_T0");
}

TEST(VerifySchedule, NamesEveryRankOfADeadlock) {
  // Each rank waits for what the other does later.
  const Schedule ring = schedule({0, 1}, 2, {"0F0 0B0 0F1 0B1", "1F0 1F1 1B0 1B1"});
  EXPECT_EQ(refusal(ring),
            "ConfigError: schedule mine: deadlock: rank 0, position 1, 0B0 waits for 1B or I0 of "
            "rank 1; rank 1, position 1, 1F1 waits for 0F1 of rank 0");
}

TEST(VerifySchedule, KnowsThatAWindowOfReceivesMayBlock) {
  // Rank 1 opens the receive of the second gradient long before it can come, and then needs the
  // first activation's.
  const Schedule early = schedule({0, 1, 2}, 1,
                                  {"0F0 0SEND_F0 0RECV_B0 0B0 0REDUCE_GRAD STEP",
                                   "1RECV_B0 1RECV_F0 1F0 1SEND_F0 1B0 1SEND_B0 1REDUCE_GRAD STEP",
                                   "2RECV_F0 2F0 2B0 2SEND_B0 2REDUCE_GRAD STEP"});
  EXPECT_EQ(refusal(early, {.max_receives = 2}), "no error");
  EXPECT_EQ(refusal(early, {.max_receives = 1}),
            "ConfigError: schedule mine: deadlock: rank 0, position 3, 0B0 waits for 1SEND_B0 of "
            "rank 1; rank 1, position 1, 1RECV_F0 waits for the oldest of 1 open receives, "
            "1RECV_B0, and so for 2SEND_B0 of rank 2; rank 2, position 1, 2F0 waits for 1SEND_F0 "
            "of rank 1");
}

TEST(VerifySchedule, RefusesWhatIsNoSchedule) {
  Schedule good = schedule({0, 1}, 1, {"0F0 0B0", "1F0 1B0"});
  EXPECT_EQ(failure_of([&] { verify_schedule(good, {{}}, {}); }),
            "ConfigError: schedule mine: costs of 1 stages, but it has 2");
  EXPECT_EQ(failure_of([&] {
              verify_schedule(good, {{}, {.forward_us = -2}}, {});
            }),
            "ConfigError: schedule mine: stage 1 has a cost of -2 us, wanted 0 or more");
  EXPECT_EQ(failure_of([&] {
              verify_schedule(good, {{}, {.boundary_bytes = -3}}, {});
            }),
            "ConfigError: schedule mine: stage 1 has a cost of -3 bytes, wanted 0 or more");
  EXPECT_EQ(refusal(good, {.max_receives = 0}),
            "ConfigError: schedule mine: 0 open receives, wanted at least 1");
  Schedule bad = good;
  bad.ranks = 3;
  EXPECT_EQ(refusal(bad), "ConfigError: schedule mine: of 3 ranks, with instructions for 2");
  bad = good;
  bad.rank_of_stage = {0, 4};
  EXPECT_EQ(refusal(bad),
            "ConfigError: schedule mine: stage 1 is on rank 4, but the ranks are 0 to 1");
  bad.rank_of_stage = {0, 0};
  EXPECT_EQ(refusal(bad),
            "ConfigError: schedule mine: rank 1 has no stage; 2 stages are on 2 ranks");
  bad = good;
  bad.micro_batches = 0;
  EXPECT_THAT(refusal(bad), HasSubstr("2 stages and 0 micro-batches, wanted 1 to"));
}

// Runs a schedule by the plainest rules there are: a rank goes on as long as what its next
// instruction needs is there. Knows no times, no tables of positions.
class PlainRun {
 public:
  PlainRun(const Schedule& schedule, int max_receives)
      : schedule_(schedule), window_(at(max_receives)), next_(schedule.of_rank.size(), 0) {
    for (const auto& list : schedule.of_rank) {
      for (const Instruction& i : list) messages_ = messages_ || !is_compute(i.action);
    }
    open_.resize(next_.size());
  }

  // What went wrong, or nothing.
  std::string run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t rank = 0; rank < next_.size(); ++rank) {
        while (next_[rank] < schedule_.of_rank[rank].size() && can_go_on(rank)) {
          std::string wrong = go_on(rank);
          if (!wrong.empty()) return wrong;
          ++next_[rank];
          moved = true;
        }
      }
    }
    for (std::size_t rank = 0; rank < next_.size(); ++rank) {
      if (next_[rank] < schedule_.of_rank[rank].size()) return "stuck";
    }
    return what_is_missing();
  }

 private:
  using Pass = std::tuple<Action, int, int>;  // action, stage, micro-batch
  bool is_done(Action action, int stage, int m) const { return done_.contains({action, stage, m}); }
  bool is_back(int stage, int m) const {
    return is_done(Action::kBackward, stage, m) || is_done(Action::kBackwardInput, stage, m);
  }
  int rank_of(int stage) const { return schedule_.rank_of_stage[at(stage)]; }
  int last() const { return schedule_.stages() - 1; }

  bool has_arrived(const Instruction& receive) const {
    const int m = receive.micro_batch;
    if (!is_done(receive.action, receive.stage, m)) return false;
    if (receive.action == Action::kReceiveActivation) {
      return is_done(Action::kSendActivation, receive.stage - 1, m);
    }
    if (receive.action == Action::kReceiveGradient) {
      return is_done(Action::kSendGradient, receive.stage + 1, m);
    }
    return is_done(Action::kSendTied, 0, m);
  }

  bool can_go_on(std::size_t rank) {
    const Instruction& i = schedule_.of_rank[rank][next_[rank]];
    const int m = i.micro_batch;
    if (is_receive(i.action)) {
      const std::deque<Instruction>& before = open_[rank];
      return before.size() < window_ || has_arrived(before[before.size() - window_]);
    }
    if (i.action == Action::kForward && i.stage > 0) {
      if (rank_of(i.stage - 1) == static_cast<int>(rank)) {
        return is_done(Action::kForward, i.stage - 1, m);
      }
      return messages_ ? has_arrived({Action::kReceiveActivation, i.stage, m})
                       : is_done(Action::kForward, i.stage - 1, m);
    }
    if ((i.action == Action::kBackward || i.action == Action::kBackwardInput) && i.stage < last()) {
      if (rank_of(i.stage + 1) == static_cast<int>(rank)) return is_back(i.stage + 1, m);
      return messages_ ? has_arrived({Action::kReceiveGradient, i.stage, m})
                       : is_back(i.stage + 1, m);
    }
    if (i.action == Action::kReduce && i.stage == last()) {
      for (const Instruction& r : tied_) {
        if (!has_arrived(r)) return false;
      }
    }
    return true;
  }

  // Does it; says what it did without having what it needs.
  std::string go_on(std::size_t rank) {
    const Instruction& i = schedule_.of_rank[rank][next_[rank]];
    const int m = i.micro_batch;
    if (i.action != Action::kStep && rank_of(i.stage) != static_cast<int>(rank)) return "elsewhere";
    if (has_micro_batch(i.action) && !done_.insert({i.action, i.stage, m}).second) return "twice";
    if (is_compute(i.action) && gathers() && !gathered_.contains(i.stage)) return "no weights";
    switch (i.action) {
      case Action::kForward:
        return in_turn(forwards_[i.stage], m);
      case Action::kBackward:
        if (!is_done(Action::kForward, i.stage, m)) return "B without F";
        return in_turn(inputs_[i.stage], m) + in_turn(weights_[i.stage], m);
      case Action::kBackwardInput:
        if (!is_done(Action::kForward, i.stage, m)) return "I without F";
        return in_turn(inputs_[i.stage], m);
      case Action::kBackwardWeight:
        if (!is_done(Action::kBackwardInput, i.stage, m)) return "W without I";
        return in_turn(weights_[i.stage], m);
      case Action::kSendActivation:
        if (!is_done(Action::kForward, i.stage, m)) return "sends nothing";
        return ascends(messages_of_[{i.action, i.stage}], m);
      case Action::kSendGradient:
      case Action::kSendTied:
        if (!is_back(i.stage, m)) return "sends nothing";
        return ascends(messages_of_[{i.action, i.stage}], m);
      case Action::kReceiveTied:
        if (!is_back(i.stage, m) || reduced_.contains(i.stage)) return "tied at the wrong time";
        tied_.push_back(i);
        [[fallthrough]];
      case Action::kReceiveActivation:
      case Action::kReceiveGradient:
        open_[rank].push_back(i);
        return ascends(messages_of_[{i.action, i.stage}], m);
      case Action::kGather:
        return gathered_.insert(i.stage).second ? "" : "gathers twice";
      case Action::kRelease:
        return gathered_.erase(i.stage) == 1 ? "" : "releases nothing";
      case Action::kReduce:
        if (!reduced_.insert(i.stage).second) return "reduces twice";
        return weights_[i.stage] == schedule_.micro_batches ? "" : "reduces too early";
      case Action::kStep:
        for (int stage = 0; stage <= last(); ++stage) {
          if (rank_of(stage) == static_cast<int>(rank) && !reduced_.contains(stage)) {
            return "steps too early";
          }
        }
        return next_[rank] + 1 == schedule_.of_rank[rank].size() ? "" : "goes on after STEP";
    }
    return "";
  }

  static std::string ascends(int& latest, int m) {
    const bool right = m >= latest;
    latest = m;
    return right ? "" : "a message out of turn";
  }

  static std::string in_turn(int& next, int m) { return m == next++ ? "" : "out of turn"; }

  bool gathers() const {
    for (const auto& list : schedule_.of_rank) {
      for (const Instruction& i : list) {
        if (i.action == Action::kGather) return true;
      }
    }
    return false;
  }

  std::string what_is_missing() {
    for (const auto& list : open_) {
      for (const Instruction& receive : list) {
        if (!has_arrived(receive)) return "a receive without its send";
      }
    }
    int sends = 0;
    int receives = 0;
    for (const auto& list : schedule_.of_rank) {
      for (const Instruction& i : list) {
        sends += is_send(i.action) ? 1 : 0;
        receives += is_receive(i.action) ? 1 : 0;
      }
    }
    if (sends != receives) return "a send without its receive";
    const bool back = !inputs_.empty();
    for (int stage = 0; stage <= last(); ++stage) {
      if (forwards_[stage] != schedule_.micro_batches) return "a forward is missing";
      if (!back) continue;
      if (inputs_[stage] != schedule_.micro_batches) return "an I is missing";
      if (weights_[stage] != schedule_.micro_batches) return "a W is missing";
    }
    if (!tied_.empty() && tied_.size() != at(schedule_.micro_batches))
      return "a tied one is missing";
    if (messages_ && back) {
      for (const auto& list : schedule_.of_rank) {
        if (list.empty() || list.back().action != Action::kStep) return "no STEP";
      }
    }
    return gathered_.empty() ? "" : "weights are left";
  }

  const Schedule& schedule_;
  std::size_t window_;
  bool messages_ = false;
  std::vector<std::size_t> next_;
  std::vector<std::deque<Instruction>> open_;
  std::vector<Instruction> tied_;
  std::set<Pass> done_;
  std::map<int, int> forwards_;
  std::map<int, int> inputs_;
  std::map<int, int> weights_;
  std::map<std::pair<Action, int>, int> messages_of_;  // the latest of each stage
  std::set<int> gathered_;
  std::set<int> reduced_;
};

std::string text_of(const Schedule& schedule) {
  std::string text;
  for (const std::vector<Instruction>& list : schedule.of_rank) {
    for (const Instruction& instruction : list) text += to_string(instruction) + " ";
    text += "\n";
  }
  return text;
}

Schedule arbitrary_schedule() {
  ScheduleRequest request{.name = *rc::gen::elementOf(schedule_names())};
  request.ranks = *rc::gen::inRange(1, 6);
  request.micro_batches = *rc::gen::inRange(1, 9);
  if (request.name == "interleaved") request.chunks = *rc::gen::inRange(1, 4);
  Schedule compute = generate_schedule(request);
  if (*rc::gen::element(false, false, true)) return compute;
  return with_communication(compute, {.tied = *rc::gen::element(false, true),
                                      .gather = *rc::gen::element(false, true),
                                      .train = request.name != "streaming"});
}

// Swaps two, drops one, repeats one, or moves one to another place, of its rank or of another.
void mutate(Schedule& schedule) {
  const auto rank_with_any = [&] {
    std::vector<std::size_t> ranks;
    for (std::size_t rank = 0; rank < schedule.of_rank.size(); ++rank) {
      if (!schedule.of_rank[rank].empty()) ranks.push_back(rank);
    }
    return *rc::gen::elementOf(ranks);
  };
  std::vector<Instruction>& list = schedule.of_rank[rank_with_any()];
  const auto from = *rc::gen::inRange<std::size_t>(0, list.size());
  const Instruction instruction = list[from];
  switch (*rc::gen::inRange(0, 5)) {
    case 0: {
      const auto to = *rc::gen::inRange<std::size_t>(0, list.size());
      std::swap(list[from], list[to]);
      break;
    }
    case 1:
      if (from + 1 < list.size()) std::swap(list[from], list[from + 1]);
      break;
    case 2:
      list.erase(list.begin() + static_cast<std::ptrdiff_t>(from));
      break;
    case 3: {
      const auto to = *rc::gen::inRange<std::size_t>(0, list.size() + 1);
      list.insert(list.begin() + static_cast<std::ptrdiff_t>(to), instruction);
      break;
    }
    default: {
      list.erase(list.begin() + static_cast<std::ptrdiff_t>(from));
      auto& other =
          *rc::gen::arbitrary<bool>()
              ? list
              : schedule.of_rank[*rc::gen::inRange<std::size_t>(0, schedule.of_rank.size())];
      const auto to = *rc::gen::inRange<std::size_t>(0, other.size() + 1);
      other.insert(other.begin() + static_cast<std::ptrdiff_t>(to), instruction);
    }
  }
}

RC_GTEST_PROP(VerifySchedule, RefusesOrProvesAnyChangeOfASchedule, ()) {
  Schedule changed = arbitrary_schedule();
  RC_ASSERT(PlainRun(changed, 2).run() == "");
  for (int changes = *rc::gen::inRange(1, 3); changes > 0; --changes) mutate(changed);
  const int max_receives = *rc::gen::inRange(1, 4);
  const std::string refused = refusal(changed, {.max_receives = max_receives});
  const std::string wrong = PlainRun(changed, max_receives).run();
  RC_CLASSIFY(refused == "no error", "accepted");
  RC_CLASSIFY(refused.find("deadlock") != std::string::npos, "deadlock");
  RC_LOG() << text_of(changed) << refused << "; plain: " << wrong;
  RC_ASSERT((refused == "no error") == wrong.empty());
  if (wrong.empty()) return;
  static const std::regex kNames(
      "ConfigError: schedule [a-z0-9-]+: .*rank \\d+.*"
      "(\\d+(F|B|I|W|SEND_[FBT]|RECV_[FBT])\\d+|"
      "\\d+(UNSHARD|RESHARD|REDUCE_GRAD)|STEP|again|nothing).*");
  RC_ASSERT(std::regex_match(refused, kNames));
}

TEST(VerifySchedule, ProvesManyThousandInstructions) {
  const Schedule large = with_communication(
      generate_schedule({.name = "interleaved", .ranks = 16, .micro_batches = 128, .chunks = 4}),
      {.tied = true, .gather = true});
  EXPECT_EQ(verify_schedule(large, {}, {}).ranks[15].busy_us, 128 * 4 * 3);
}

}  // namespace
}  // namespace trireme::plan

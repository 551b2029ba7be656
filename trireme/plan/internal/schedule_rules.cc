// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/internal/schedule_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "trireme/base/error.h"

namespace trireme::plan {
namespace {

class Rules {
 public:
  Rules(const ScheduleIndex& positions, bool tied)
      : positions_(positions), schedule_(positions.schedule()), tied_(tied) {}

  void check() {
    for (int stage = 0; stage < schedule_.stages(); ++stage) {
      for (int m = 0; m < schedule_.micro_batches; ++m) check_passes(stage, m);
    }
    for (int rank = 0; rank < schedule_.ranks; ++rank) check_ascending(rank);
    if (positions_.only_compute()) return;
    for (int stage = 0; stage < schedule_.stages(); ++stage) {
      for (int m = 0; m < schedule_.micro_batches; ++m) check_messages(stage, m);
    }
    for (int rank = 0; rank < schedule_.ranks; ++rank) check_whole_step(rank);
  }

 private:
  [[noreturn]] void refuse(int stage, std::size_t position, const std::string& what) const {
    refuse_instruction(schedule_, positions_.rank_of(stage), position, what);
  }

  // Where the instruction stands, which must be there.
  std::size_t required(const Instruction& wanted, const char* why) const {
    const auto found = positions_.find(wanted.action, wanted.stage, wanted.micro_batch);
    if (!found) {
      throw_error<ConfigError>("schedule {}: rank {} has no {}{}", schedule_.name,
                               positions_.rank_of(wanted.stage), to_string(wanted), why);
    }
    return *found;
  }

  void check_after(int stage, std::size_t later, std::size_t earlier) const {
    if (later > earlier) return;
    const std::vector<Instruction>& list = schedule_.of_rank[index(positions_.rank_of(stage))];
    refuse(stage, later, fmt::format("before {}, position {}", to_string(list[earlier]), earlier));
  }

  // Once forward and once backward, each after what it needs on this rank.
  void check_passes(int stage, int m) const {
    const std::size_t forward = required({Action::kForward, stage, m}, "");
    if (stage > 0 && !positions_.crosses(stage - 1)) {
      check_after(stage, forward, required({Action::kForward, stage - 1, m}, ""));
    }
    if (!positions_.backward()) return;

    const std::size_t backward = check_kind_of_backward(stage, m);
    check_after(stage, backward, forward);
    if (stage + 1 < schedule_.stages() && !positions_.crosses(stage)) {
      check_after(stage, backward, check_kind_of_backward(stage + 1, m));
    }
    if (const auto weight = positions_.find(Action::kBackwardWeight, stage, m)) {
      check_after(stage, *weight, backward);
    }
  }

  // Position of B or I; never both, and I with its W.
  std::size_t check_kind_of_backward(int stage, int m) const {
    const auto whole = positions_.find(Action::kBackward, stage, m);
    const auto input = positions_.find(Action::kBackwardInput, stage, m);
    const auto weight = positions_.find(Action::kBackwardWeight, stage, m);
    if (whole && (input || weight)) {
      refuse(stage, *whole,
             fmt::format(
                 "the backward is whole here and {} at position {}",
                 to_string({input ? Action::kBackwardInput : Action::kBackwardWeight, stage, m}),
                 input ? *input : *weight));
    }
    if (whole) return *whole;
    if (!input && !weight) {
      required({Action::kBackward, stage, m},
               fmt::format(", nor {}", to_string({Action::kBackwardInput, stage, m})).c_str());
    }
    required({Action::kBackwardWeight, stage, m}, ", but its I");
    return required({Action::kBackwardInput, stage, m}, ", but its W");
  }

  // Instructions of a stage that sum, or that must meet in order, go up in micro-batches: B with I
  // as gradients of the input, B with W as those of the weights.
  void check_ascending(int rank) const {
    struct Last {
      int micro_batch = -1;
      std::size_t position = 0;
    };
    std::map<std::pair<int, Action>, Last> last;
    const std::vector<Instruction>& list = schedule_.of_rank[index(rank)];
    for (std::size_t position = 0; position < list.size(); ++position) {
      const Instruction& instruction = list[position];
      if (!has_micro_batch(instruction.action)) continue;
      const auto follow = [&](Action as) {
        Last& before = last[{instruction.stage, as}];
        if (instruction.micro_batch < before.micro_batch) {
          refuse_instruction(
              schedule_, rank, position,
              fmt::format("after {}, position {}; a stage's micro-batches must ascend",
                          to_string(list[before.position]), before.position));
        }
        before = {instruction.micro_batch, position};
      };
      if (instruction.action == Action::kBackward) {
        follow(Action::kBackwardInput);
        follow(Action::kBackwardWeight);
      } else {
        follow(instruction.action);
      }
    }
  }

  // A message that must be there if and only if two ranks are to meet: the send after what it
  // sends, the receive before what needs it.
  void check_message(const Instruction& message, bool wanted, std::size_t neighbour) const {
    const auto position = positions_.find(message.action, message.stage, message.micro_batch);
    if (!wanted) {
      if (position) refuse(message.stage, *position, "nothing for it to meet on another rank");
      return;
    }
    const std::string why =
        fmt::format(" for {}", to_string(counterpart(message, schedule_.stages())));
    const std::size_t found = required(message, why.c_str());
    if (is_send(message.action)) {
      check_after(message.stage, found, neighbour);
    } else {
      check_after(message.stage, neighbour, found);
    }
  }

  void check_messages(int stage, int m) const {
    const bool from_before = stage > 0 && positions_.crosses(stage - 1);
    const bool to_next = stage + 1 < schedule_.stages() && positions_.crosses(stage);
    const bool backward = positions_.backward();
    const std::size_t f = required({Action::kForward, stage, m}, "");
    const std::size_t b = backward ? *positions_.find_backward(stage, m) : 0;
    check_message({Action::kReceiveActivation, stage, m}, from_before, f);
    check_message({Action::kSendActivation, stage, m}, to_next, f);
    check_message({Action::kReceiveGradient, stage, m}, backward && to_next, b);
    check_message({Action::kSendGradient, stage, m}, backward && from_before, b);

    const bool tied = backward && tied_ && positions_.tied_crosses();
    const bool last = stage + 1 == schedule_.stages();
    check_message({Action::kSendTied, stage, m}, tied && stage == 0, b);
    if (const auto receive = positions_.find(Action::kReceiveTied, stage, m); receive && last) {
      check_after(stage, *receive, b);
    }
    const bool receives = tied && last;
    check_message({Action::kReceiveTied, stage, m}, receives,
                  receives ? required({Action::kReduce, stage, -1}, "") : 0);
  }

  struct StageWalk {
    bool gathered = false;
    int weights = 0;  // W or B so far
    bool reduced = false;
  };

  // UNSHARD, RESHARD, REDUCE_GRAD and STEP.
  void check_whole_step(int rank) const {
    const bool gathers = has_gather();
    const std::vector<Instruction>& list = schedule_.of_rank[index(rank)];
    std::map<int, StageWalk> walks;
    for (const int stage : stages_of_rank(schedule_.rank_of_stage, rank)) walks[stage] = {};
    for (std::size_t position = 0; position < list.size(); ++position) {
      const Instruction& instruction = list[position];
      if (instruction.action == Action::kStep) {
        check_step(rank, position, walks);
      } else {
        check_walk(rank, position, walks[instruction.stage], gathers);
      }
    }
    for (const auto& [stage, walk] : walks) {
      if (walk.gathered) {
        throw_error<ConfigError>("schedule {}: rank {} has no {} after its last {}", schedule_.name,
                                 rank, to_string({Action::kRelease, stage, -1}),
                                 to_string({Action::kGather, stage, -1}));
      }
    }
    if (positions_.backward() && (list.empty() || list.back().action != Action::kStep)) {
      throw_error<ConfigError>("schedule {}: rank {} does not end with STEP, but with {}",
                               schedule_.name, rank,
                               list.empty() ? "nothing" : to_string(list.back()));
    }
  }

  void check_walk(int rank, std::size_t position, StageWalk& walk, bool gathers) const {
    const Instruction& instruction = schedule_.of_rank[index(rank)][position];
    const Action action = instruction.action;
    const auto refuse_here = [&](const char* what) {
      refuse_instruction(schedule_, rank, position, what);
    };
    if (action == Action::kGather) {
      if (walk.gathered) refuse_here("the weights are there already");
      walk.gathered = true;
    } else if (action == Action::kRelease) {
      if (!walk.gathered) refuse_here("without an UNSHARD before it");
      walk.gathered = false;
    } else if (action == Action::kReduce) {
      if (!positions_.backward()) refuse_here("the schedule has no backward pass");
      if (walk.weights < schedule_.micro_batches) refuse_here("before the stage's last B or W");
      walk.reduced = true;
    } else if (is_compute(action)) {
      if (gathers && !walk.gathered) refuse_here("the stage's weights are not there: no UNSHARD");
      if (action == Action::kBackward || action == Action::kBackwardWeight) ++walk.weights;
    }
  }

  void check_step(int rank, std::size_t position, const std::map<int, StageWalk>& walks) const {
    if (!positions_.backward()) {
      refuse_instruction(schedule_, rank, position, "the schedule has no backward pass");
    }
    if (position + 1 < schedule_.of_rank[index(rank)].size()) {
      refuse_instruction(schedule_, rank, position, "it must be the rank's last");
    }
    for (const auto& [stage, walk] : walks) {
      if (walk.reduced) continue;
      refuse_instruction(schedule_, rank, position,
                         fmt::format("no {} before it", to_string({Action::kReduce, stage, -1})));
    }
  }

  bool has_gather() const {
    return std::any_of(schedule_.of_rank.begin(), schedule_.of_rank.end(), [](const auto& list) {
      return std::any_of(list.begin(), list.end(), [](const Instruction& instruction) {
        return instruction.action == Action::kGather || instruction.action == Action::kRelease;
      });
    });
  }

  // Constant after construction.
  const ScheduleIndex& positions_;
  const Schedule& schedule_;
  bool tied_;
};

}  // namespace

bool exchanges_tied(const ScheduleIndex& positions) {
  const int last = positions.schedule().stages() - 1;
  for (int m = 0; m < positions.schedule().micro_batches; ++m) {
    if (positions.has(Action::kSendTied, 0, m) || positions.has(Action::kReceiveTied, last, m)) {
      return true;
    }
  }
  return false;
}

void check_rules(const ScheduleIndex& positions, bool tied) {
  Rules(positions, tied || exchanges_tied(positions)).check();
}

}  // namespace trireme::plan

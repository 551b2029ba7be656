// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/internal/list_scheduler.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <tuple>

#include "trireme/base/check.h"
#include "trireme/plan/internal/index.h"

namespace trireme::plan {
namespace {

// When each micro-batch's passes through one stage are done; those that are listed so far.
struct StageState {
  std::vector<double> forward;
  std::vector<double> input;   // I, or B
  std::vector<double> weight;  // W, or B

  int waiting() const { return static_cast<int>(forward.size() - input.size()); }
  int stored() const { return static_cast<int>(forward.size() - weight.size()); }
};

struct Candidate {
  Instruction instruction;
  double start = 0;
  double ready = 0;
  int liking = 0;  // position in the policy's order
};

class ListScheduler {
 public:
  ListScheduler(const Policy& policy, int micro_batches, const std::vector<StageTimes>& times)
      : policy_(policy), times_(times), micro_batches_(index(micro_batches)) {
    states_.resize(policy.rank_of_stage.size());
    const int ranks =
        1 + *std::max_element(policy.rank_of_stage.begin(), policy.rank_of_stage.end());
    for (int rank = 0; rank < ranks; ++rank) {
      stages_.push_back(stages_of_rank(policy.rank_of_stage, rank));
    }
    free_at_.resize(index(ranks), 0.0);
    turn_.resize(index(ranks), -1);
    of_rank_.resize(index(ranks));
    number_rounds();
  }

  std::vector<std::vector<Instruction>> run() {
    const std::size_t passes = !policy_.backward ? 1 : policy_.split_backward ? 3 : 2;
    std::vector<std::optional<Candidate>> best(stages_.size());
    for (std::size_t rank = 0; rank < best.size(); ++rank) best[rank] = best_of(rank);
    for (std::size_t left = passes * states_.size() * micro_batches_; left > 0; --left) {
      std::size_t chosen = best.size();
      for (std::size_t rank = 0; rank < best.size(); ++rank) {
        if (!best[rank]) continue;
        if (chosen == best.size() || best[rank]->start < best[chosen]->start) chosen = rank;
      }
      TRIREME_ASSERT(chosen < best.size(), "a policy under which no rank can go on, {} left", left);
      const Candidate candidate = *best[chosen];
      take(chosen, candidate);
      // What it computed is for the stages beside it, and for the rank itself.
      best[chosen] = best_of(chosen);
      for (const int beside : {candidate.instruction.stage - 1, candidate.instruction.stage + 1}) {
        if (beside < 0 || index(beside) >= states_.size()) continue;
        const std::size_t rank = index(policy_.rank_of_stage[index(beside)]);
        best[rank] = best_of(rank);
      }
    }
    return std::move(of_rank_);
  }

 private:
  void number_rounds() {
    for (std::size_t round = 0; round < policy_.rounds.size(); ++round) {
      round_of_.insert(round_of_.end(), index(policy_.rounds[round]), static_cast<int>(round));
    }
  }

  static bool below(const std::vector<int>& limits, std::size_t at, int value) {
    return limits.empty() || value < limits[at];
  }

  int ahead(std::size_t rank) const {
    const std::vector<int>& mine = stages_[rank];
    return static_cast<int>(states_[index(mine.front())].forward.size() -
                            states_[index(mine.back())].forward.size());
  }

  bool has_room(std::size_t rank, int stage) const {
    int waiting = 0;
    int stored = 0;
    for (const int mine : stages_[rank]) {
      waiting += states_[index(mine)].waiting();
      stored += states_[index(mine)].stored();
    }
    return below(policy_.max_waiting, rank, waiting) && below(policy_.max_stored, rank, stored) &&
           (stage != stages_[rank].front() || below(policy_.max_ahead, rank, ahead(rank)));
  }

  bool all_forwards_done(std::size_t rank) const {
    return std::all_of(stages_[rank].begin(), stages_[rank].end(), [&](int stage) {
      return states_[index(stage)].forward.size() == micro_batches_;
    });
  }

  // When the inputs of the stage's next forward are there; nothing while that is not known.
  std::optional<double> forward_ready(std::size_t rank, int stage) const {
    const std::size_t next = states_[index(stage)].forward.size();
    if (next == micro_batches_ || !has_room(rank, stage)) return std::nullopt;
    if (stage == 0) return 0.0;
    const std::vector<double>& before = states_[index(stage - 1)].forward;
    return next < before.size() ? std::optional(before[next]) : std::nullopt;
  }

  std::optional<double> input_ready(std::size_t rank, int stage) const {
    const StageState& state = states_[index(stage)];
    const std::size_t next = state.input.size();
    if (next == state.forward.size()) return std::nullopt;
    if (policy_.fill_first && !all_forwards_done(rank) && has_room(rank, stage)) {
      return std::nullopt;
    }
    if (index(stage) + 1 == states_.size()) return state.forward[next];
    const std::vector<double>& after = states_[index(stage + 1)].input;
    return next < after.size() ? std::optional(std::max(after[next], state.forward[next]))
                               : std::nullopt;
  }

  std::optional<double> weight_ready(int stage) const {
    const StageState& state = states_[index(stage)];
    const std::size_t next = state.weight.size();
    return next < state.input.size() ? std::optional(state.input[next]) : std::nullopt;
  }

  // The stage of the rank whose forward, or backward, the rounds want next; -1 without rounds.
  int wanted_stage(std::size_t rank, bool forward) const {
    if (policy_.rounds.empty()) return -1;
    const auto key = [&](int stage) {
      const StageState& state = states_[index(stage)];
      const std::size_t next = forward ? state.forward.size() : state.input.size();
      const int round = next < micro_batches_ ? round_of_[next] : kNoLimit;
      return std::tuple(round, forward ? stage : -stage);
    };
    return *std::min_element(stages_[rank].begin(), stages_[rank].end(),
                             [&](int a, int b) { return key(a) < key(b); });
  }

  std::optional<Candidate> candidate(std::size_t rank, int stage, Action action) const {
    const StageState& state = states_[index(stage)];
    std::optional<double> ready;
    std::size_t micro_batch = 0;
    if (action == Action::kForward) {
      const int wanted = wanted_stage(rank, true);
      if (wanted < 0 || wanted == stage) ready = forward_ready(rank, stage);
      micro_batch = state.forward.size();
    } else if (action == Action::kBackwardInput) {
      const int wanted = wanted_stage(rank, false);
      if (wanted < 0 || wanted == stage) ready = input_ready(rank, stage);
      micro_batch = state.input.size();
      if (!policy_.split_backward) action = Action::kBackward;
    } else {
      ready = weight_ready(stage);
      micro_batch = state.weight.size();
    }
    if (!ready) return std::nullopt;
    return Candidate{{action, stage, static_cast<int>(micro_batch)},
                     std::max(free_at_[rank], *ready),
                     *ready,
                     0};
  }

  // The earliest start; of those, what the policy likes best.
  std::optional<Candidate> best_of(std::size_t rank) const {
    const auto key = [&](const Candidate& c) {
      const bool in_turn = policy_.chunks_take_turns && c.instruction.action != Action::kForward &&
                           c.instruction.stage == turn_[rank];
      const double waited_from = policy_.later_stage_first ? 0 : c.ready;
      return std::tuple(c.start, c.liking, !in_turn, waited_from, -c.instruction.stage);
    };
    std::optional<Candidate> best;
    const bool last = !policy_.last_order.empty() && all_forwards_done(rank);
    const std::vector<Action>& order = last ? policy_.last_order : policy_.order;
    for (std::size_t liking = 0; liking < order.size(); ++liking) {
      const Action action = order[liking];
      if (action != Action::kForward && !policy_.backward) continue;
      if (action == Action::kBackwardWeight && !policy_.split_backward) continue;
      for (const int stage : stages_[rank]) {
        std::optional<Candidate> next = candidate(rank, stage, action);
        if (!next) continue;
        next->liking = static_cast<int>(liking);
        if (!best || key(*next) < key(*best)) best = next;
      }
    }
    return best;
  }

  void take(std::size_t rank, const Candidate& candidate) {
    StageState& state = states_[index(candidate.instruction.stage)];
    const StageTimes& times = times_[index(candidate.instruction.stage)];
    double end = candidate.start;
    switch (candidate.instruction.action) {
      case Action::kForward:
        end += times.forward;
        state.forward.push_back(end);
        turn_[rank] = candidate.instruction.stage;
        break;
      case Action::kBackwardInput:
        end += times.backward_input;
        state.input.push_back(end);
        turn_[rank] = stages_[rank].front() + stages_[rank].back() - candidate.instruction.stage;
        break;
      case Action::kBackwardWeight:
        end += times.backward_weight;
        state.weight.push_back(end);
        break;
      default:
        end += times.backward_input + times.backward_weight;
        state.input.push_back(end);
        state.weight.push_back(end);
    }
    free_at_[rank] = end;
    of_rank_[rank].push_back(candidate.instruction);
  }

  // Constant after construction.
  const Policy& policy_;
  const std::vector<StageTimes>& times_;
  std::size_t micro_batches_;
  std::vector<std::vector<int>> stages_;  // of each rank
  std::vector<int> round_of_;             // of each micro-batch, with rounds

  std::vector<StageState> states_;
  std::vector<double> free_at_;  // of each rank
  std::vector<int> turn_;  // of each rank, the stage whose backward is next, if they take turns
  std::vector<std::vector<Instruction>> of_rank_;
};

}  // namespace

std::vector<std::vector<Instruction>> list_schedule(const Policy& policy, int micro_batches,
                                                    const std::vector<StageTimes>& times) {
  return ListScheduler(policy, micro_batches, times).run();
}

}  // namespace trireme::plan

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/plan/generate_schedule.h"
#include "trireme/plan/internal/schedule_index.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme::plan {
namespace {

// The rank waits where it receives tied gradients, and times are seldom what is planned: so it does
// a micro-batch's three passes later than they are sent.
constexpr double kTiedSlack = 3;

// Writes one rank's list anew, from its compute instructions.
class RankWriter {
 public:
  RankWriter(const ScheduleIndex& positions, const CommunicationOptions& options,
             const ScheduleReport& simulated, int rank)
      : positions_(positions),
        options_(options),
        schedule_(positions.schedule()),
        compute_(schedule_.of_rank[index(rank)]),
        timeline_(simulated.ranks[index(rank)].timeline) {
    for (const Instruction& instruction : compute_) ++uses_[instruction.stage];
    for (const Instruction& instruction : compute_) {
      if (completes_weights(instruction.action)) ++weights_[instruction.stage];
    }
    collect_tied(simulated);
  }

  std::vector<Instruction> write() {
    if (!compute_.empty()) prepare(0);
    for (std::size_t i = 0; i < compute_.size(); ++i) {
      receive_tied_until(timeline_[i].start_us);
      if (i + 1 < compute_.size()) prepare(i + 1);
      add(compute_[i]);
      send(compute_[i]);
      finish(compute_[i]);
    }
    receive_tied_until(kNever);
    if (options_.train) add({Action::kStep, -1, -1});
    return std::move(list_);
  }

 private:
  static bool completes_weights(Action action) {
    return action == Action::kBackward || action == Action::kBackwardWeight;
  }
  static bool gives_gradient(Action action) {
    return action == Action::kBackward || action == Action::kBackwardInput;
  }

  void add(const Instruction& instruction) { list_.push_back(instruction); }

  // When stage 0's rank sends each of its tied gradients, for the rank of the last stage.
  void collect_tied(const ScheduleReport& simulated) {
    if (!options_.train || !options_.tied || !positions_.tied_crosses()) return;
    const int last = schedule_.stages() - 1;
    if (positions_.rank_of(last) != positions_.rank_of(compute_.front().stage)) return;
    const std::vector<Span>& sender = simulated.ranks[index(positions_.rank_of(0))].timeline;
    for (int m = 0; m < schedule_.micro_batches; ++m) {
      tied_us_.push_back(sender[*positions_.find_backward(0, m)].end_us + kTiedSlack);
    }
  }

  // What the instruction needs that is not here yet: its stage's weights, and a message.
  void prepare(std::size_t position) {
    const Instruction& next = compute_[position];
    const int stage = next.stage;
    if (options_.gather && gathered_.insert(stage).second) {
      add({Action::kGather, stage, -1});
    }
    if (next.action == Action::kForward && stage > 0 && positions_.crosses(stage - 1)) {
      add({Action::kReceiveActivation, stage, next.micro_batch});
    }
    if (gives_gradient(next.action) && stage + 1 < schedule_.stages() &&
        positions_.crosses(stage)) {
      add({Action::kReceiveGradient, stage, next.micro_batch});
    }
  }

  void send(const Instruction& done) {
    const int stage = done.stage;
    if (done.action == Action::kForward && stage + 1 < schedule_.stages() &&
        positions_.crosses(stage)) {
      add({Action::kSendActivation, stage, done.micro_batch});
    }
    if (!gives_gradient(done.action)) return;
    if (stage > 0 && positions_.crosses(stage - 1)) {
      add({Action::kSendGradient, stage, done.micro_batch});
    }
    if (stage == 0 && options_.tied && positions_.tied_crosses()) {
      add({Action::kSendTied, stage, done.micro_batch});
    }
  }

  // After the stage's last use, and after its last weight gradient.
  void finish(const Instruction& done) {
    const int stage = done.stage;
    if (--uses_[stage] == 0 && options_.gather) add({Action::kRelease, stage, -1});
    if (!completes_weights(done.action) || --weights_[stage] > 0) return;
    if (stage + 1 == schedule_.stages() && next_tied_ < tied_us_.size()) return;
    add({Action::kReduce, stage, -1});
  }

  // The tied gradients that are there by then. The last of them may complete the last stage's:
  // stage 0 is the last to go back.
  void receive_tied_until(double time_us) {
    const int last = schedule_.stages() - 1;
    for (; next_tied_ < tied_us_.size() && tied_us_[next_tied_] <= time_us; ++next_tied_) {
      add({Action::kReceiveTied, last, static_cast<int>(next_tied_)});
      if (next_tied_ + 1 == tied_us_.size() && weights_[last] == 0) {
        add({Action::kReduce, last, -1});
      }
    }
  }

  static constexpr double kNever = std::numeric_limits<double>::infinity();

  // Constant after construction.
  const ScheduleIndex& positions_;
  const CommunicationOptions& options_;
  const Schedule& schedule_;
  const std::vector<Instruction>& compute_;
  const std::vector<Span>& timeline_;
  std::vector<double> tied_us_;  // of each micro-batch; empty where none come

  std::map<int, int> uses_;     // of each stage, that are to come
  std::map<int, int> weights_;  // B or W
  std::set<int> gathered_;
  std::size_t next_tied_ = 0;
  std::vector<Instruction> list_;
};

}  // namespace

Schedule with_communication(const Schedule& schedule, const CommunicationOptions& options) {
  if (!only_compute(schedule)) {
    throw_error<ConfigError>("schedule {} has its communication already", schedule.name);
  }
  if (options.train != has_backward(schedule)) {
    throw_error<ConfigError>("schedule {} has {} backward pass, but train is {}", schedule.name,
                             options.train ? "no" : "a", options.train);
  }
  const ScheduleReport simulated = verify_schedule(schedule, {}, {});
  const ScheduleIndex positions(schedule);
  Schedule whole = schedule;
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    whole.of_rank[index(rank)] = RankWriter(positions, options, simulated, rank).write();
  }
  return whole;
}

}  // namespace trireme::plan

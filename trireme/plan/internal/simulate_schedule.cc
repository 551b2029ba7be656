// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/internal/simulate_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <queue>
#include <tuple>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

namespace trireme::plan {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
bool known(double time) { return !std::isnan(time); }

// What one stage sends forward, back, or of a tied matrix, for one micro-batch. In a schedule of
// compute instructions only both of its ends start when it is computed.
struct Transfer {
  double sent = kUnknown;      // the send has started
  double received = kUnknown;  // the receive has started
  double arrives = kUnknown;   // known when both have
  Span* send_span = nullptr;   // none in a schedule of compute only
  Span* receive_span = nullptr;
  int waiting_rank = -1;  // which cannot go on before it arrives
};

// A rank as the simulation goes.
struct RankState {
  std::size_t next = 0;  // position in its list
  double clock = 0;
  std::deque<Transfer*> window;  // its latest receives, max_receives of them
  Transfer* tied = nullptr;      // that it waits for
};

using Transfers = std::vector<std::vector<Transfer>>;  // of each stage and micro-batch

class Simulation {
 public:
  Simulation(const ScheduleIndex& positions, const std::vector<StageCosts>& costs, int max_receives)
      : positions_(positions),
        schedule_(positions.schedule()),
        costs_(costs),
        max_receives_(index(max_receives)),
        states_(index(schedule_.ranks)) {
    const std::vector<Transfer> of_stage(index(schedule_.micro_batches));
    activations_.assign(index(schedule_.stages()), of_stage);
    gradients_.assign(index(schedule_.stages()), of_stage);
    tied_ = of_stage;
    for (const std::vector<Instruction>& list : schedule_.of_rank) {
      RankReport& rank = report_.ranks.emplace_back();
      for (const Instruction& instruction : list) rank.timeline.push_back({instruction, 0, 0});
    }
  }

  ScheduleReport run() {
    for (int rank = 0; rank < schedule_.ranks; ++rank) wake(0, rank);
    while (!events_.empty()) {
      const auto [time, rank] = events_.top();
      events_.pop();
      RankState& state = states_[index(rank)];
      state.clock = std::max(state.clock, time);
      advance(rank);
    }
    refuse_deadlock();
    for (const RankState& state : states_) {
      report_.step_us = std::max(report_.step_us, state.clock);
    }
    return std::move(report_);
  }

 private:
  void wake(double time, int rank) { events_.emplace(time, rank); }

  // The transfer that a compute or receive instruction needs, or that a send starts.
  Transfer* transfer_of(const Instruction& message) {
    const std::size_t m = index(message.micro_batch);
    switch (message.action) {
      case Action::kSendActivation:
        return &activations_[index(message.stage)][m];
      case Action::kReceiveActivation:
        return &activations_[index(message.stage) - 1][m];
      case Action::kSendGradient:
        return &gradients_[index(message.stage)][m];
      case Action::kReceiveGradient:
        return &gradients_[index(message.stage) + 1][m];
      default:
        return &tied_[m];
    }
  }

  // The messages that the instruction cannot do without.
  std::vector<Instruction> needs(const Instruction& instruction) const {
    const int stage = instruction.stage;
    const int last = schedule_.stages() - 1;
    if (instruction.action == Action::kForward && stage > 0 && positions_.crosses(stage - 1)) {
      return {{Action::kReceiveActivation, stage, instruction.micro_batch}};
    }
    const bool backward =
        instruction.action == Action::kBackward || instruction.action == Action::kBackwardInput;
    if (backward && stage < last && positions_.crosses(stage)) {
      return {{Action::kReceiveGradient, stage, instruction.micro_batch}};
    }
    std::vector<Instruction> tied;
    if (instruction.action == Action::kReduce && stage == last) {
      for (int m = 0; m < schedule_.micro_batches; ++m) {
        if (positions_.has(Action::kReceiveTied, stage, m)) {
          tied.push_back({Action::kReceiveTied, stage, m});
        }
      }
    }
    return tied;
  }

  // Runs the rank from its clock until it computes, waits, or is done.
  void advance(int rank) {
    RankState& state = states_[index(rank)];
    const std::vector<Instruction>& list = schedule_.of_rank[index(rank)];
    while (state.next < list.size()) {
      // The rank waits where it receives tied gradients, so that it adds them at that place.
      if (state.tied != nullptr && !has_arrived(rank, *state.tied)) return;
      state.tied = nullptr;
      const Instruction& instruction = list[state.next];
      Span& span = report_.ranks[index(rank)].timeline[state.next];
      if (is_receive(instruction.action) ? !has_window(rank) : !has_needs(rank, instruction))
        return;
      span.start_us = span.end_us = state.clock;
      ++state.next;
      if (is_compute(instruction.action)) {
        compute(rank, instruction, span);
        return;
      }
      if (is_send(instruction.action)) start_send(instruction, state.clock, &span);
      if (is_receive(instruction.action)) start_receive(rank, instruction, &span);
    }
  }

  // Whether the transfer has arrived; else the rank will be woken when it has.
  bool has_arrived(int rank, Transfer& transfer) {
    if (!known(transfer.arrives)) {
      transfer.waiting_rank = rank;
      return false;
    }
    if (transfer.arrives <= states_[index(rank)].clock) return true;
    wake(transfer.arrives, rank);
    return false;
  }

  bool has_needs(int rank, const Instruction& instruction) {
    const std::vector<Instruction> messages = needs(instruction);
    return std::all_of(messages.begin(), messages.end(), [&](const Instruction& message) {
      return has_arrived(rank, *transfer_of(message));
    });
  }

  // Whether the rank may start one more receive: whether that of max_receives before has arrived.
  bool has_window(int rank) {
    std::deque<Transfer*>& window = states_[index(rank)].window;
    if (window.size() < max_receives_) return true;
    if (!has_arrived(rank, *window.front())) return false;
    window.pop_front();
    return true;
  }

  void compute(int rank, const Instruction& instruction, Span& span) {
    const StageCosts& costs = costs_[index(instruction.stage)];
    double time = 0;
    if (instruction.action == Action::kForward) {
      time = costs.forward_us;
    } else {
      if (instruction.action != Action::kBackwardWeight) time += costs.backward_input_us;
      if (instruction.action != Action::kBackwardInput) time += costs.backward_weight_us;
    }
    span.end_us = span.start_us + time;
    report_.ranks[index(rank)].busy_us += time;
    wake(span.end_us, rank);
    if (!positions_.only_compute() || instruction.action == Action::kBackwardWeight) return;
    const bool forward = instruction.action == Action::kForward;
    const Instruction message{forward ? Action::kSendActivation : Action::kSendGradient,
                              instruction.stage, instruction.micro_batch};
    transfer_of(message)->received = span.end_us;
    start_send(message, span.end_us, nullptr);
  }

  void start_send(const Instruction& message, double time, Span* span) {
    Transfer* transfer = transfer_of(message);
    transfer->sent = time;
    transfer->send_span = span;
    meet(*transfer, message.stage);
  }

  void start_receive(int rank, const Instruction& message, Span* span) {
    Transfer* transfer = transfer_of(message);
    transfer->received = states_[index(rank)].clock;
    transfer->receive_span = span;
    states_[index(rank)].window.push_back(transfer);
    if (message.action == Action::kReceiveTied) states_[index(rank)].tied = transfer;
    meet(*transfer, counterpart(message, schedule_.stages()).stage);
  }

  void meet(Transfer& transfer, int sender) {
    if (!known(transfer.sent) || !known(transfer.received)) return;
    transfer.arrives = std::max(transfer.sent, transfer.received) + costs_[index(sender)].send_us;
    if (transfer.send_span != nullptr) transfer.send_span->end_us = transfer.arrives;
    if (transfer.receive_span != nullptr) transfer.receive_span->end_us = transfer.arrives;
    if (transfer.waiting_rank >= 0) wake(transfer.arrives, transfer.waiting_rank);
  }

  // Where a rank stands that cannot go on, and what for.
  std::string blocked(int rank) {
    const RankState& state = states_[index(rank)];
    const Instruction& instruction = schedule_.of_rank[index(rank)][state.next];
    std::string text = fmt::format("rank {}, position {}, {} waits for ", rank, state.next,
                                   to_string(instruction));
    Instruction message;
    if (is_receive(instruction.action)) {
      text += fmt::format("the oldest of {} open receives, {}, and so for ", max_receives_,
                          to_string(state.window.front()->receive_span->instruction));
      message = state.window.front()->receive_span->instruction;
    } else {
      for (const Instruction& need : needs(instruction)) {
        if (known(transfer_of(need)->arrives)) continue;
        message = need;
        break;
      }
    }
    const Instruction send = counterpart(message, schedule_.stages());
    const bool forward = send.action == Action::kSendActivation;
    return text + fmt::format("{} of rank {}",
                              positions_.only_compute()
                                  ? fmt::format("{}{}{}", send.stage, forward ? "F" : "B or I",
                                                send.micro_batch)
                                  : to_string(send),
                              positions_.rank_of(send.stage));
  }

  void refuse_deadlock() {
    std::string waits;
    for (int rank = 0; rank < schedule_.ranks; ++rank) {
      if (states_[index(rank)].next == schedule_.of_rank[index(rank)].size()) continue;
      waits += (waits.empty() ? "" : "; ") + blocked(rank);
    }
    if (waits.empty()) return;
    throw_error<ConfigError>("schedule {}: deadlock: {}", schedule_.name, waits);
  }

  // Constant after construction.
  const ScheduleIndex& positions_;
  const Schedule& schedule_;
  const std::vector<StageCosts>& costs_;
  std::size_t max_receives_;

  using Event = std::pair<double, int>;  // time, rank
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<RankState> states_;
  Transfers activations_;  // by the stage that sends
  Transfers gradients_;
  std::vector<Transfer> tied_;
  ScheduleReport report_;
};

}  // namespace

ScheduleReport simulate_schedule(const ScheduleIndex& positions,
                                 const std::vector<StageCosts>& costs, int max_receives) {
  return Simulation(positions, costs, max_receives).run();
}

}  // namespace trireme::plan

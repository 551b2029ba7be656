// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/verify_schedule.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "trireme/base/error.h"
#include "trireme/plan/internal/schedule_index.h"
#include "trireme/plan/internal/schedule_rules.h"
#include "trireme/plan/internal/simulate_schedule.h"

namespace trireme::plan {
namespace {

void check_costs(const Schedule& schedule, const std::vector<StageCosts>& costs) {
  if (costs.size() != schedule.rank_of_stage.size()) {
    throw_error<ConfigError>("schedule {}: costs of {} stages, but it has {}", schedule.name,
                             costs.size(), schedule.rank_of_stage.size());
  }
  for (std::size_t stage = 0; stage < costs.size(); ++stage) {
    const StageCosts& c = costs[stage];
    for (const double time : {c.forward_us, c.backward_input_us, c.backward_weight_us, c.send_us}) {
      if (time >= 0 && std::isfinite(time)) continue;
      throw_error<ConfigError>("schedule {}: stage {} has a cost of {} us, wanted 0 or more",
                               schedule.name, stage, time);
    }
    const auto least =
        std::min({c.activation_bytes, c.weight_work_bytes, c.boundary_bytes, c.weight_bytes,
                  c.forward_work_bytes, c.backward_work_bytes, c.tied_bytes});
    if (least < 0) {
      throw_error<ConfigError>("schedule {}: stage {} has a cost of {} bytes, wanted 0 or more",
                               schedule.name, stage, least);
    }
  }
}

// A rank's memory, as changes at times.
class Memory {
 public:
  // Held from the first instruction's start until the second's end.
  void hold(const Span& from, const Span& until, std::int64_t bytes) {
    add(from.start_us, until.end_us, bytes);
  }
  void add(double from_us, double until_us, std::int64_t bytes) {
    if (bytes == 0) return;
    changes_.push_back({from_us, bytes});
    changes_.push_back({until_us, -bytes});
  }

  // What ends at a time is let go before what begins at that time is taken.
  std::int64_t peak() {
    std::sort(changes_.begin(), changes_.end(), [](const Change& a, const Change& b) {
      return a.time_us != b.time_us ? a.time_us < b.time_us : a.bytes < b.bytes;
    });
    std::int64_t now = 0;
    std::int64_t most = 0;
    for (const Change& change : changes_) {
      now += change.bytes;
      most = std::max(most, now);
    }
    return most;
  }

 private:
  struct Change {
    double time_us;
    std::int64_t bytes;
  };
  std::vector<Change> changes_;
};

// What the instructions of a rank hold, each from when until when.
class Holdings {
 public:
  Holdings(const ScheduleIndex& positions, const std::vector<StageCosts>& costs,
           const std::vector<Span>& timeline)
      : positions_(positions), costs_(costs), timeline_(timeline) {}

  // The most that the rank takes at any time, without weights.
  std::int64_t peak() {
    for (const Span& span : timeline_) {
      if (span.instruction.stage >= 0) add(span);
    }
    return memory_.peak();
  }

 private:
  const Span& span_of(Action action, int stage, int micro_batch) const {
    return timeline_[*positions_.find(action, stage, micro_batch)];
  }
  const Span& backward_of(int stage, int micro_batch) const {
    return timeline_[*positions_.find_backward(stage, micro_batch)];
  }
  // Both stages are on this rank.
  bool is_within(int stage) const {
    return stage >= 0 && stage + 1 < positions_.schedule().stages() && !positions_.crosses(stage);
  }

  void add(const Span& span) {
    const Instruction& it = span.instruction;
    const StageCosts& cost = costs_[index(it.stage)];
    switch (it.action) {
      case Action::kForward:
        return add_forward(span, cost);
      case Action::kBackward:
        return add_backward(span, cost);
      case Action::kBackwardInput:
        // The one grows as the other shrinks.
        memory_.hold(span, span,
                     std::max<std::int64_t>(0, cost.weight_work_bytes - cost.activation_bytes -
                                                   cost.backward_work_bytes));
        memory_.add(span.end_us, span_of(Action::kBackwardWeight, it.stage, it.micro_batch).end_us,
                    cost.weight_work_bytes);
        return add_backward(span, cost);
      case Action::kSendActivation:
      case Action::kSendTied:
        return memory_.hold(span, span, cost.boundary_bytes);
      case Action::kReceiveTied:
        return memory_.hold(span, span, costs_.front().boundary_bytes);
      case Action::kSendGradient:
        return memory_.hold(span, span, costs_[index(it.stage) - 1].boundary_bytes);
      case Action::kReceiveActivation:
        return memory_.hold(span, span_of(Action::kForward, it.stage, it.micro_batch),
                            costs_[index(it.stage) - 1].boundary_bytes);
      case Action::kReceiveGradient:
        return memory_.hold(span, backward_of(it.stage, it.micro_batch), cost.boundary_bytes);
      default:
        return;
    }
  }

  void add_forward(const Span& span, const StageCosts& cost) {
    const int stage = span.instruction.stage, m = span.instruction.micro_batch;
    memory_.hold(span, span, cost.forward_work_bytes);
    memory_.hold(span, positions_.backward() ? backward_of(stage, m) : span, cost.activation_bytes);
    if (is_within(stage)) {
      memory_.add(span.end_us, span_of(Action::kForward, stage + 1, m).end_us, cost.boundary_bytes);
    }
    if (stage + 1 < positions_.schedule().stages()) return;
    if (positions_.has(Action::kReceiveTied, stage, m)) {
      const double comes_us = span_of(Action::kReceiveTied, stage, m).end_us;
      memory_.add(span.start_us, end_of_next_compute(comes_us), cost.tied_bytes);
    } else if (positions_.backward() && positions_.rank_of(0) == positions_.rank_of(stage)) {
      memory_.hold(span, backward_of(0, m), cost.tied_bytes);
    }
  }

  // A rank looks for tied gradients between its instructions, so what comes at this time may have
  // to wait for one.
  double end_of_next_compute(double time_us) const {
    for (const Span& span : timeline_) {
      if (is_compute(span.instruction.action) && span.start_us >= time_us) return span.end_us;
    }
    return std::max(time_us, timeline_.back().end_us);
  }

  void add_backward(const Span& span, const StageCosts& cost) {
    const int stage = span.instruction.stage, m = span.instruction.micro_batch;
    memory_.hold(span, span, cost.backward_work_bytes);
    if (!is_within(stage - 1)) return;
    memory_.add(span.end_us, backward_of(stage - 1, m).end_us,
                costs_[index(stage) - 1].boundary_bytes);
  }

  // Constant after construction.
  const ScheduleIndex& positions_;
  const std::vector<StageCosts>& costs_;
  const std::vector<Span>& timeline_;
  Memory memory_;
};

}  // namespace

ScheduleReport verify_schedule(const Schedule& schedule, const std::vector<StageCosts>& costs,
                               const VerifyOptions& options) {
  if (options.max_receives < 1) {
    throw_error<ConfigError>("schedule {}: {} open receives, wanted at least 1", schedule.name,
                             options.max_receives);
  }
  const ScheduleIndex positions(schedule);
  const std::vector<StageCosts> whole =
      costs.empty() ? std::vector<StageCosts>(schedule.rank_of_stage.size()) : costs;
  check_costs(schedule, whole);
  check_rules(positions, options.tied);

  ScheduleReport report = simulate_schedule(positions, whole, options.max_receives);
  for (RankReport& rank : report.ranks) {
    rank.idle_us = report.step_us - rank.busy_us;
    rank.bubble = report.step_us > 0 ? rank.idle_us / report.step_us : 0;
    rank.peak_bytes = Holdings(positions, whole, rank.timeline).peak();
  }
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    report.ranks[index(positions.rank_of(stage))].peak_bytes += whole[index(stage)].weight_bytes;
  }
  return report;
}

}  // namespace trireme::plan

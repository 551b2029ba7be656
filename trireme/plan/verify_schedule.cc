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
        std::min({c.activation_bytes, c.weight_work_bytes, c.boundary_bytes, c.weight_bytes});
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

// The most memory that a rank takes at any time, without weights.
std::int64_t working_bytes(const ScheduleIndex& positions, const std::vector<StageCosts>& costs,
                           const std::vector<Span>& timeline) {
  Memory memory;
  const auto span_of = [&](Action action, const Instruction& of) -> const Span& {
    return timeline[*positions.find(action, of.stage, of.micro_batch)];
  };
  const auto backward_of = [&](const Instruction& of) -> const Span& {
    return timeline[*positions.find_backward(of.stage, of.micro_batch)];
  };
  for (const Span& span : timeline) {
    const Instruction& it = span.instruction;
    if (it.stage < 0) continue;
    const StageCosts& cost = costs[index(it.stage)];
    switch (it.action) {
      case Action::kForward:
        memory.hold(span, positions.backward() ? backward_of(it) : span, cost.activation_bytes);
        break;
      case Action::kBackwardInput:
        memory.hold(span, span_of(Action::kBackwardWeight, it), cost.weight_work_bytes);
        break;
      case Action::kSendActivation:
        memory.hold(span, span, cost.boundary_bytes);
        break;
      case Action::kSendGradient:
        memory.hold(span, span, costs[index(it.stage) - 1].boundary_bytes);
        break;
      case Action::kReceiveActivation:
        memory.hold(span, span_of(Action::kForward, it), costs[index(it.stage) - 1].boundary_bytes);
        break;
      case Action::kReceiveGradient:
        memory.hold(span, backward_of(it), cost.boundary_bytes);
        break;
      default:
        break;
    }
  }
  return memory.peak();
}

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
    rank.peak_bytes = working_bytes(positions, whole, rank.timeline);
  }
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    report.ranks[index(positions.rank_of(stage))].peak_bytes += whole[index(stage)].weight_bytes;
  }
  return report;
}

}  // namespace trireme::plan

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/generate_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <optional>
#include <utility>

#include "trireme/base/config.h"
#include "trireme/base/error.h"
#include "trireme/plan/internal/dual_pipe_v.h"
#include "trireme/plan/internal/index.h"
#include "trireme/plan/internal/list_scheduler.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme::plan {
namespace {

// Each of 0 .. count-1 by its number.
std::vector<int> each(int count, const std::function<int(int)>& value) {
  std::vector<int> values(index(count));
  for (int i = 0; i < count; ++i) values[index(i)] = value(i);
  return values;
}

// Stage s on rank s mod p.
std::vector<int> in_turn(int ranks, int chunks) {
  return each(ranks * chunks, [=](int stage) { return stage % ranks; });
}

// Down the ranks and up again: rank r has stages r and 2p-1-r.
std::vector<int> in_a_v(int ranks) {
  return each(2 * ranks, [=](int stage) { return std::min(stage, 2 * ranks - 1 - stage); });
}

using Policies = std::vector<Policy>;

// The policy, and in its place others by what a rank likes best: which one is right depends on how
// the times of F, I and W compare.
Policies with_other_orders(const Policy& policy) {
  constexpr Action kF = Action::kForward;
  constexpr Action kI = Action::kBackwardInput;
  constexpr Action kW = Action::kBackwardWeight;
  Policies policies = {policy};
  for (const auto& order : {std::vector{kF, kI, kW}, std::vector{kI, kF, kW}}) {
    policies.push_back(policy);
    policies.back().order = order;
    policies.back().last_order.clear();
    policies.back().chunks_take_turns = false;
  }
  return policies;
}

Policies gpipe(const ScheduleRequest& request) {
  return {{.rank_of_stage = in_turn(request.ranks, 1), .fill_first = true}};
}

// A backward as soon as it can run; as many forwards before the first as there are ranks from here
// to the last.
Policies one_forward_one_backward(const ScheduleRequest& request) {
  const int p = request.ranks;
  return {{.rank_of_stage = in_turn(p, 1), .max_stored = each(p, [=](int r) { return p - r; })}};
}

// Rounds of p micro-batches; if m is no multiple of p, as equal as can be and of at least p.
std::vector<int> rounds_of(int ranks, int micro_batches) {
  const int rounds = std::max(1, micro_batches / ranks);
  return each(rounds, [=](int round) {
    return micro_batches / rounds + (round < micro_batches % rounds ? 1 : 0);
  });
}

// A rank forwards a round through all chunks but its last, and then one micro-batch and two more
// for each rank from here to the last: so long takes the way there and back.
Policies interleaved(const ScheduleRequest& request) {
  const int p = request.ranks;
  const std::vector<int> rounds = rounds_of(p, request.micro_batches);
  const int before_last = (request.chunks - 1) * rounds.front();
  const int way = request.chunks > 1 ? 2 : 1;
  return {{.rank_of_stage = in_turn(p, request.chunks),
           .fill_first = true,
           .rounds = rounds,
           .max_stored = each(p, [=](int r) { return before_last + way * (p - 1 - r) + 1; })}};
}

// 1f1b with each W put off to where the rank would wait, as far as p stored micro-batches allow.
Policies zero_bubble_h1(const ScheduleRequest& request) {
  const int p = request.ranks;
  Policy policy{.rank_of_stage = in_turn(p, 1),
                .split_backward = true,
                .order = {Action::kForward, Action::kBackwardInput, Action::kBackwardWeight},
                .max_waiting = each(p, [=](int r) { return p - r; }),
                .max_stored = each(p, [=](int) { return p; })};
  return with_other_orders(policy);
}

// Forwards until 2p chunks are stored, the later chunk's where there are any; the first chunk's
// never so many that the later could not follow. From then on F, I and W of one chunk, and of the
// other: a W as soon as there is one, which makes room for a forward, and an I where there is
// neither. A rank that took whichever I has waited longest, or an I before its W, would let the
// chunks' backward passes run ahead of one another; their forwards then come too late for other
// ranks.
Policies zero_bubble_v(const ScheduleRequest& request) {
  const int p = request.ranks;
  Policy policy{.rank_of_stage = in_a_v(p),
                .split_backward = true,
                .order = {Action::kBackwardWeight, Action::kForward, Action::kBackwardInput},
                .last_order = {Action::kBackwardInput, Action::kBackwardWeight},
                .later_stage_first = true,
                .chunks_take_turns = true,
                .max_stored = each(p, [=](int) { return 2 * p; }),
                .max_ahead = each(p, [=](int r) { return 2 * (p - r) - 1; })};
  return with_other_orders(policy);
}

Policies streaming(const ScheduleRequest& request) {
  return {{.rank_of_stage = in_turn(request.ranks, 1), .backward = false}};
}

std::vector<StageCosts> costs_of(const std::vector<StageTimes>& times) {
  std::vector<StageCosts> costs(times.size());
  for (std::size_t stage = 0; stage < times.size(); ++stage) {
    costs[stage].forward_us = times[stage].forward;
    costs[stage].backward_input_us = times[stage].backward_input;
    costs[stage].backward_weight_us = times[stage].backward_weight;
  }
  return costs;
}

// The most that a rank waits between its first instruction and its last.
double longest_wait(const ScheduleReport& report) {
  double longest = 0;
  for (const RankReport& rank : report.ranks) {
    const double whole = rank.timeline.back().end_us - rank.timeline.front().start_us;
    longest = std::max(longest, whole - rank.busy_us);
  }
  return longest;
}

// Lists what each policy makes of equal times and of the given ones, and takes what is fastest with
// these: a rank that takes the best at each moment does not always do so in the end.
void list_fastest(const Policies& policies, const std::vector<StageTimes>& times,
                  Schedule& schedule) {
  const std::vector<StageTimes> equal(times.size());
  const std::vector<StageCosts> costs = costs_of(times);
  std::optional<std::pair<double, double>> least;
  Schedule listed = schedule;
  for (const Policy& policy : policies) {
    for (const std::vector<StageTimes>& with : {equal, times}) {
      listed.of_rank = list_schedule(policy, schedule.micro_batches, with);
      const ScheduleReport report = verify_schedule(listed, costs, {});
      const std::pair key(report.step_us, longest_wait(report));
      if (least && *least <= key) continue;
      least = key;
      schedule.of_rank = listed.of_rank;
    }
  }
}

struct Kind {
  std::string name;
  int chunks;  // 0: as many as are asked for
  std::vector<int> (*placement)(const ScheduleRequest&);
  Policies (*policies)(const ScheduleRequest&);  // none: a fixed pattern
};

std::vector<int> placed_in_turn(const ScheduleRequest& request) {
  return in_turn(request.ranks, request.chunks);
}
std::vector<int> placed_in_a_v(const ScheduleRequest& request) { return in_a_v(request.ranks); }

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> kinds = {
      {"gpipe", 1, placed_in_turn, gpipe},
      {"1f1b", 1, placed_in_turn, one_forward_one_backward},
      {"interleaved", 0, placed_in_turn, interleaved},
      {"zb-h1", 1, placed_in_turn, zero_bubble_h1},
      {"zbv", 2, placed_in_a_v, zero_bubble_v},
      {"dualpipev", 2, placed_in_a_v, nullptr},
      {"streaming", 1, placed_in_turn, streaming},
  };
  return kinds;
}

const Kind& kind_of(const std::string& name) {
  for (const Kind& kind : kinds()) {
    if (kind.name == name) return kind;
  }
  const std::optional<std::string> near = nearest_word(name, schedule_names());
  throw_error<ConfigError>("unknown schedule '{}', known are {}{}", name,
                           fmt::join(schedule_names(), ", "),
                           near ? fmt::format("; did you mean '{}'?", *near) : "");
}

void check_at_least_one(const ScheduleRequest& request, const char* what, int value) {
  if (value >= 1) return;
  throw_error<ConfigError>("schedule {}: {} {}, wanted at least 1", request.name, what, value);
}

// Fills in what the request leaves open.
ScheduleRequest checked(ScheduleRequest request) {
  const Kind& kind = kind_of(request.name);
  check_at_least_one(request, "ranks", request.ranks);
  check_at_least_one(request, "micro-batches", request.micro_batches);
  check_at_least_one(request, "chunks", request.chunks);
  if (kind.chunks != 0 && request.chunks != 1 && request.chunks != kind.chunks) {
    throw_error<ConfigError>(
        "schedule {} has {} chunk{} on a rank, not {}; interleaved has any number", request.name,
        kind.chunks, kind.chunks == 1 ? "" : "s", request.chunks);
  }
  if (kind.chunks != 0) request.chunks = kind.chunks;
  const std::size_t stages = index(request.ranks) * index(request.chunks);
  constexpr std::size_t kMostPasses = 1U << 24U;  // more than a GiB of instructions
  if (stages > kMostPasses / index(request.micro_batches)) {
    throw_error<ConfigError>("schedule {}: {} stages by {} micro-batches, wanted at most {} in all",
                             request.name, stages, request.micro_batches, kMostPasses);
  }
  if (request.times.empty()) request.times.resize(stages);
  if (request.times.size() != stages) {
    throw_error<ConfigError>("schedule {}: times of {} stages, but {} ranks have {}", request.name,
                             request.times.size(), request.ranks, stages);
  }
  for (std::size_t stage = 0; stage < stages; ++stage) {
    const StageTimes& times = request.times[stage];
    for (const double time : {times.forward, times.backward_input, times.backward_weight}) {
      if (time > 0 && std::isfinite(time)) continue;
      throw_error<ConfigError>(
          "schedule {}: stage {} takes the times {}, {} and {}, wanted above 0", request.name,
          stage, times.forward, times.backward_input, times.backward_weight);
    }
  }
  return request;
}

}  // namespace

const std::vector<std::string>& schedule_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Kind& kind : kinds()) all.push_back(kind.name);
    return all;
  }();
  return names;
}

std::vector<int> rank_of_stage(const ScheduleRequest& request) {
  return kind_of(request.name).placement(checked(request));
}

Schedule generate_schedule(const ScheduleRequest& request) {
  const ScheduleRequest whole = checked(request);
  const Kind& kind = kind_of(request.name);
  Schedule schedule{.name = whole.name,
                    .ranks = whole.ranks,
                    .rank_of_stage = kind.placement(whole),
                    .micro_batches = whole.micro_batches};
  if (kind.policies == nullptr) {
    schedule.of_rank = dual_pipe_v(whole.ranks, whole.micro_batches);
    return schedule;
  }
  const Policies policies = kind.policies(whole);
  if (policies.size() == 1) {  // its order is its name, whatever the times
    const std::vector<StageTimes> equal(whole.times.size());
    schedule.of_rank = list_schedule(policies.front(), whole.micro_batches, equal);
  } else {
    list_fastest(policies, whole.times, schedule);
  }
  return schedule;
}

}  // namespace trireme::plan

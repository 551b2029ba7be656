// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/pipeline/pipeline_plans.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/plan/cut_layers.h"
#include "trireme/plan/generate_schedule.h"
#include "trireme/plan/verify_schedule.h"

namespace trireme {
namespace {

// Which round of the ranks a stage belongs to: a round ends where a rank would be in it twice.
std::vector<int> rounds_of(const std::vector<int>& rank_of_stage) {
  std::vector<int> rounds;
  std::set<int> seen;
  int round = 0;
  for (const int rank : rank_of_stage) {
    if (!seen.insert(rank).second) {
      seen = {rank};
      ++round;
    }
    rounds.push_back(round);
  }
  return rounds;
}

void check_counts(const std::vector<int>& counts, std::size_t stages, std::size_t layers) {
  const int sum = std::accumulate(counts.begin(), counts.end(), 0);
  const bool positive = std::ranges::all_of(counts, [](int count) { return count > 0; });
  if (counts.size() == stages && positive && sum == static_cast<int>(layers)) return;
  throw_error<ConfigError>(
      "layers [{}] are {} in {} stages: the net has {} layers and the schedule {} stages, of at "
      "least one layer each",
      fmt::join(counts, ", "), sum, counts.size(), layers, stages);
}

// Others wait for what this gives.
std::vector<int> cut_measured(const PipelineOptions& options, const plan::Schedule& schedule,
                              const std::vector<NamedLayer>& layers, Group& group) {
  try {
    return plan::cut_layers(layer_costs(layers, options.example),
                            {.rank_of_stage = schedule.rank_of_stage});
  } catch (const std::exception& error) {
    const std::string text = error.what();
    group.abandon("it ran the net's layers with the example of PipelineOptions: " +
                  text.substr(0, text.find('\n')));
    throw;
  }
}

}  // namespace

plan::Schedule training_schedule(const PipelineOptions& options, int ranks) {
  plan::Schedule schedule;
  if (const auto* name = std::get_if<std::string>(&options.schedule)) {
    schedule = plan::generate_schedule({.name = *name,
                                        .ranks = ranks,
                                        .micro_batches = options.micro_batches,
                                        .chunks = options.chunks});
  } else {
    schedule = std::get<plan::Schedule>(options.schedule);
  }
  if (schedule.ranks != ranks || schedule.micro_batches != options.micro_batches) {
    throw_error<ConfigError>(
        "schedule {} is for {} ranks and {} micro-batches, and the pipeline has {} ranks and {} "
        "micro-batches of a step",
        schedule.name, schedule.ranks, schedule.micro_batches, ranks, options.micro_batches);
  }
  if (!plan::has_backward(schedule)) {
    throw_error<ConfigError>(
        "schedule {} has no backward passes: evaluate() and forward() need no schedule of their "
        "own",
        schedule.name);
  }
  if (plan::only_compute(schedule)) schedule = plan::with_communication(schedule, {});
  plan::verify_schedule(schedule, {}, {});
  return schedule;
}

plan::Schedule forward_schedule(const plan::Schedule& training, int micro_batches) {
  if (micro_batches < 1) {
    throw_error<ConfigError>("{} micro-batches to evaluate: at least 1", micro_batches);
  }
  plan::Schedule schedule{.name = "forward",
                          .ranks = training.ranks,
                          .rank_of_stage = training.rank_of_stage,
                          .micro_batches = micro_batches};
  const std::vector<int> rounds = rounds_of(training.rank_of_stage);
  std::vector<std::tuple<int, int, int>> order;  // turn, stage, micro-batch
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    for (int m = 0; m < micro_batches; ++m) {
      order.emplace_back(m / schedule.ranks + rounds[static_cast<std::size_t>(stage)], stage, m);
    }
  }
  std::ranges::sort(order);
  schedule.of_rank.resize(static_cast<std::size_t>(schedule.ranks));
  for (const auto& [turn, stage, m] : order) {
    const int rank = schedule.rank_of_stage[static_cast<std::size_t>(stage)];
    schedule.of_rank[static_cast<std::size_t>(rank)].push_back({plan::Action::kForward, stage, m});
  }
  return plan::with_communication(schedule, {.train = false});
}

std::vector<int> count_layers(const PipelineOptions& options, const plan::Schedule& schedule,
                              const std::vector<NamedLayer>& layers, Group& group) {
  const auto stages = static_cast<std::size_t>(schedule.stages());
  std::vector<int> counts = options.layers;
  if (counts.empty()) {
    if (layers.size() < stages) {
      throw_error<ConfigError>(
          "schedule {} has {} stages, and the net {} layers: take fewer ranks or chunks",
          schedule.name, stages, layers.size());
    }
    std::vector<std::int64_t> first(stages);
    if (group.rank() == 0) {
      std::ranges::copy(cut_measured(options, schedule, layers, group), first.begin());
    }
    group.broadcast(buffer_of(std::span(first)), 0);
    for (std::size_t i = 0; i < stages; ++i) {
      const auto end = i + 1 < stages ? first[i + 1] : static_cast<std::int64_t>(layers.size());
      counts.push_back(static_cast<int>(end - first[i]));
    }
  }
  check_counts(counts, stages, layers.size());
  return counts;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/compare_schedules.h"

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/train/memory_estimate.h"

namespace trireme {
namespace {

constexpr const char* kInference = "streaming";

// The config with another schedule, whose chunks are its own.
TrainConfig with_schedule(const TrainConfig& config, const std::string& name) {
  TrainConfig other = config;
  PipelineConfig& pipeline = other.parallel.pipeline;
  if (pipeline.schedule == name) return other;
  pipeline.schedule = name;
  pipeline.chunks = 0;
  const auto stages = plan::rank_of_stage({.name = name,
                                           .ranks = static_cast<int>(config.parallel.pp),
                                           .chunks = name == "interleaved" ? 2 : 1})
                          .size();
  if (pipeline.layers.size() != stages) pipeline.layers.clear();
  return other;
}

ScheduleOutlook outlook(const TrainConfig& config, const JobShape& job, int dp,
                        const LayerTimes& times) {
  ScheduleOutlook result;
  result.name = config.parallel.pipeline.schedule;
  try {
    const PipelinePlan plan = plan_pipeline(config, dp, times);
    result.step_us = plan.report.step_us;
    result.bubble = bubble_of(plan.report);
    for (const MemorySplit& memory : pipeline_memory(config, job, plan)) {
      result.peak_bytes = std::max(result.peak_bytes, memory.total());
    }
  } catch (const ConfigError& error) {
    result.refused = error.what();
  }
  return result;
}

}  // namespace

double bubble_of(const plan::ScheduleReport& report) {
  double sum = 0;
  for (const plan::RankReport& rank : report.ranks) sum += rank.bubble;
  return report.ranks.empty() ? 0 : sum / static_cast<double>(report.ranks.size());
}

std::vector<ScheduleOutlook> compare_schedules(const TrainConfig& config, const JobShape& job,
                                               int dp, const LayerTimes& times) {
  std::vector<ScheduleOutlook> all;
  if (config.parallel.pipeline.is_file()) all.push_back(outlook(config, job, dp, times));
  for (const std::string& name : plan::schedule_names()) {
    if (name != kInference) all.push_back(outlook(with_schedule(config, name), job, dp, times));
  }
  for (ScheduleOutlook& one : all) one.chosen = one.name == config.parallel.pipeline.schedule;
  return all;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/cli/simulate_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "trireme/plan/schedule_picture.h"

namespace trireme::cli {
namespace {

using Json = nlohmann::ordered_json;

// "embedding", "head", both or neither.
std::string ends_of(const nn::TransformerPart& part) {
  if (part.embedding) return part.head ? "embedding, head" : "embedding";
  return part.head ? "head" : "";
}

std::string blocks_of(const nn::TransformerPart& part) {
  return part.end - part.begin == 1 ? fmt::format("{}", part.begin)
                                    : fmt::format("{}-{}", part.begin, part.end - 1);
}

std::string stage_table(const Simulation& simulation) {
  const PipelinePlan& plan = *simulation.plan;
  std::string text = fmt::format("{:<6} {:<8} {:<16} {:>4} {:>10} {:>10} {:>10}\n", "stage",
                                 "blocks", "and", "rank", "F ms", "I ms", "W ms");
  for (std::size_t stage = 0; stage < plan.stages.size(); ++stage) {
    const plan::StageCosts& costs = plan.costs[stage];
    text += fmt::format("{:<6} {:<8} {:<16} {:>4} {:>10.3f} {:>10.3f} {:>10.3f}\n", stage,
                        blocks_of(plan.stages[stage]), ends_of(plan.stages[stage]),
                        plan.schedule.rank_of_stage[stage], costs.forward_us / 1e3,
                        costs.backward_input_us / 1e3, costs.backward_weight_us / 1e3);
  }
  return text + (simulation.measured ? "Times are measured here, of a block, the embedding and the "
                                       "head, of one micro-batch.\n"
                                     : "Times are estimated from sizes, of one micro-batch; "
                                       "--measure measures them here.\n");
}

std::string memory_table(const Simulation& simulation) {
  std::string text = fmt::format("{:<6}", simulation.plan ? "rank" : "");
  for (const MemoryCategory category : kMemoryCategories) {
    text += fmt::format(" {:>11}", memory_category_name(category));
  }
  text += fmt::format(" {:>11}{}\n", "MB in all", simulation.plan ? "   bubble" : "");
  for (std::size_t rank = 0; rank < simulation.memory.size(); ++rank) {
    const MemorySplit& memory = simulation.memory[rank];
    text += fmt::format("{:<6}", simulation.plan ? std::to_string(rank) : "");
    for (const MemoryCategory category : kMemoryCategories) {
      text += fmt::format(" {:>11.2f}", static_cast<double>(memory[category]) / 1e6);
    }
    text += fmt::format(" {:>11.2f}", static_cast<double>(memory.total()) / 1e6);
    if (simulation.plan) {
      text += fmt::format(" {:>6.1f} %", 100 * simulation.plan->report.ranks[rank].bubble);
    }
    text += "\n";
  }
  return text;
}

std::string schedule_table(const Simulation& simulation) {
  std::string text =
      fmt::format("  {:<12} {:>10} {:>9} {:>12}\n", "schedule", "step ms", "bubble", "MB at most");
  for (const ScheduleOutlook& one : simulation.schedules) {
    text += fmt::format("{} {:<12}", one.chosen ? '*' : ' ', one.name);
    text += one.refused.empty()
                ? fmt::format(" {:>10.3f} {:>7.1f} % {:>12.2f}\n", one.step_us / 1e3,
                              100 * one.bubble, static_cast<double>(one.peak_bytes) / 1e6)
                : fmt::format(" {}\n", one.refused);
  }
  return text;
}

Json memory_json(const MemorySplit& memory) {
  Json json;
  for (const MemoryCategory category : kMemoryCategories) {
    json[fmt::format("{}_bytes", memory_category_name(category))] = memory[category];
  }
  json["total_bytes"] = memory.total();
  return json;
}

Json stages_json(const PipelinePlan& plan) {
  Json stages = Json::array();
  for (std::size_t stage = 0; stage < plan.stages.size(); ++stage) {
    const nn::TransformerPart& part = plan.stages[stage];
    const plan::StageCosts& costs = plan.costs[stage];
    stages.push_back({{"stage", stage},
                      {"first_block", part.begin},
                      {"blocks", part.end - part.begin},
                      {"embedding", part.embedding},
                      {"head", part.head},
                      {"rank", plan.schedule.rank_of_stage[stage]},
                      {"forward_us", costs.forward_us},
                      {"backward_input_us", costs.backward_input_us},
                      {"backward_weight_us", costs.backward_weight_us}});
  }
  return stages;
}

Json schedules_json(const std::vector<ScheduleOutlook>& schedules) {
  Json all = Json::array();
  for (const ScheduleOutlook& one : schedules) {
    Json json = {{"schedule", one.name}, {"chosen", one.chosen}};
    if (one.refused.empty()) {
      json["step_us"] = one.step_us;
      json["bubble"] = one.bubble;
      json["peak_bytes"] = one.peak_bytes;
    } else {
      json["refused"] = one.refused;
    }
    all.push_back(json);
  }
  return all;
}

}  // namespace

std::string simulation_text(const Simulation& simulation, int width, bool colour) {
  std::string text = fmt::format("mesh: {}, {} worker{}\n", simulation.mesh, simulation.workers,
                                 simulation.workers == 1 ? "" : "s");
  if (!simulation.plan) {
    return text + "no pipeline: parallel.pp is 1\n\n" + memory_table(simulation);
  }
  const PipelinePlan& plan = *simulation.plan;
  return text + "\n" + stage_table(simulation) + "\n" +
         plan::draw_schedule(plan.schedule, plan.report, {.width = width, .colour = colour}) +
         "\n" + memory_table(simulation) + "\n" + schedule_table(simulation);
}

std::string simulation_json(const Simulation& simulation) {
  Json json = {{"mesh", simulation.mesh}, {"workers", simulation.workers}};
  Json ranks = Json::array();
  for (std::size_t rank = 0; rank < simulation.memory.size(); ++rank) {
    Json one = {{"rank", rank}};
    if (simulation.plan) {
      const plan::RankReport& report = simulation.plan->report.ranks[rank];
      one["busy_us"] = report.busy_us;
      one["bubble"] = report.bubble;
    }
    one["memory"] = memory_json(simulation.memory[rank]);
    ranks.push_back(one);
  }
  if (simulation.plan) {
    const PipelinePlan& plan = *simulation.plan;
    json["times"] = simulation.measured ? "measured" : "estimated";
    json["schedule"] = plan.schedule.name;
    json["micro_batches"] = plan.schedule.micro_batches;
    json["step_us"] = plan.report.step_us;
    json["bubble"] = bubble_of(plan.report);
    json["stages"] = stages_json(plan);
    json["schedules"] = schedules_json(simulation.schedules);
  }
  json["ranks"] = ranks;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace trireme::cli

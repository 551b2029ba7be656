// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/pipeline_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "trireme/base/error.h"
#include "trireme/plan/cut_layers.h"
#include "trireme/plan/schedule_file.h"
#include "trireme/train/stage_memory.h"

namespace trireme {
namespace {

constexpr double kFlopsPerUs = 1e5;  // 100 GFLOP/s
constexpr double kBytesPerUs = 1e4;  // 10 GB/s
constexpr double kLeastUs = 1;

double tokens_of(const TrainConfig& config) {
  return static_cast<double>(config.batch.micro_batch_size * config.model.context) /
         static_cast<double>(config.parallel.cp);
}

plan::ScheduleRequest request_of(const TrainConfig& config, int micro_batches) {
  const PipelineConfig& pipeline = config.parallel.pipeline;
  plan::ScheduleRequest request{.name = pipeline.schedule,
                                .ranks = static_cast<int>(config.parallel.pp),
                                .micro_batches = micro_batches};
  if (pipeline.schedule == "interleaved") {
    request.chunks = pipeline.chunks == 0 ? 2 : static_cast<int>(pipeline.chunks);
  } else if (pipeline.chunks > 0) {
    request.chunks = static_cast<int>(pipeline.chunks);
  }
  return request;
}

std::vector<nn::TransformerPart> parts_of(const std::vector<std::int64_t>& blocks) {
  std::vector<nn::TransformerPart> parts;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    parts.push_back({.begin = begin,
                     .end = begin + blocks[i],
                     .embedding = i == 0,
                     .head = i + 1 == blocks.size()});
    begin += blocks[i];
  }
  return parts;
}

std::vector<std::int64_t> given_blocks(const TrainConfig& config, std::size_t stages) {
  const std::vector<std::int64_t> counts = config.parallel.pipeline.layer_counts();
  const std::int64_t sum = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  if (counts.size() == stages && sum == config.model.layers) return counts;
  throw_error<ConfigError>(
      "parallel.pipeline.layers has {} stages with {} blocks, but schedule {} on {} ranks has {} "
      "stages and the model {} blocks: give one number of blocks for each stage",
      counts.size(), sum, config.parallel.pipeline.schedule, config.parallel.pp, stages,
      config.model.layers);
}

bool has(const plan::Schedule& schedule, plan::Action action) {
  return std::ranges::any_of(schedule.of_rank, [&](const auto& of_rank) {
    return std::ranges::find(of_rank, action, &plan::Instruction::action) != of_rank.end();
  });
}

// What a schedule that says more than who computes what must have, or not, for this run.
void check_trains(const plan::Schedule& schedule, const TrainConfig& config) {
  const std::string& name = config.parallel.pipeline.schedule;
  if (!plan::has_backward(schedule)) {
    throw_error<ConfigError>(
        "parallel.pipeline.schedule {} has no backward passes, so nothing would be trained", name);
  }
  if (plan::only_compute(schedule)) return;
  if (config.parallel.shard == 3 && !has(schedule, plan::Action::kGather)) {
    throw_error<ConfigError>(
        "schedule {} has no UNSHARD, but parallel.shard is 3 and weights are away: leave all but "
        "F, B, I and W out of it, and the rest is added",
        name);
  }
  if (!config.model.tied() && has(schedule, plan::Action::kSendTied)) {
    throw_error<ConfigError>(
        "schedule {} has SEND_T, but the model's head has a matrix of its own: leave all but F, B, "
        "I and W out of it, and the rest is added",
        name);
  }
}

double time_of(const plan::StageTimes& times) {
  return times.forward + times.backward_input + times.backward_weight;
}

// The embedding goes with the first block, the head with the last.
std::vector<std::int64_t> cut_evenly(const nn::ModelConfig& model,
                                     const std::vector<int>& rank_of_stage, double embedding,
                                     double block, double head) {
  const std::size_t stages = rank_of_stage.size();
  if (model.layers < static_cast<std::int64_t>(stages)) {
    throw_error<ConfigError>(
        "a pipeline of {} stages needs a block for each, but model.layers is {}: take fewer ranks "
        "or chunks",
        stages, model.layers);
  }
  std::vector<plan::LayerCost> layers(static_cast<std::size_t>(model.layers),
                                      {.name = "block", .time_us = block});
  layers.front().time_us += embedding;
  layers.back().time_us += head;
  const std::vector<int> first = plan::cut_layers(layers, {.rank_of_stage = rank_of_stage});
  std::vector<std::int64_t> blocks;
  for (std::size_t i = 0; i < stages; ++i) {
    blocks.push_back((i + 1 < stages ? first[i + 1] : model.layers) - first[i]);
  }
  return blocks;
}

std::vector<std::int64_t> cut_blocks(const TrainConfig& config,
                                     const std::vector<int>& rank_of_stage,
                                     const LayerTimes& times) {
  return config.parallel.pipeline.layers.empty()
             ? cut_evenly(config.model, rank_of_stage, time_of(times.embedding),
                          time_of(times.block), time_of(times.head))
             : given_blocks(config, rank_of_stage.size());
}

plan::StageTimes times_of(const nn::TransformerPart& part, const LayerTimes& times) {
  plan::StageTimes sum{0, 0, 0};
  const auto add = [&](const plan::StageTimes& one, double count) {
    sum.forward += count * one.forward;
    sum.backward_input += count * one.backward_input;
    sum.backward_weight += count * one.backward_weight;
  };
  if (part.embedding) add(times.embedding, 1);
  add(times.block, static_cast<double>(part.end - part.begin));
  if (part.head) add(times.head, 1);
  return {std::max(kLeastUs, sum.forward), std::max(kLeastUs, sum.backward_input),
          std::max(kLeastUs, sum.backward_weight)};
}

}  // namespace

std::int64_t pipeline_micro_batches(const TrainConfig& config, int dp) {
  return config.batch.micro_batches / (config.parallel.ep * dp);
}

LayerTimes estimate_layer_times(const TrainConfig& config) {
  const nn::ModelConfig& c = config.model;
  const double N = tokens_of(config), C = static_cast<double>(c.width);
  nn::ModelConfig one = c, two = c;
  one.layers = 1;
  two.layers = 2;
  // Of a token: 6 flops for each parameter of a matrix, and attention's, causal.
  const double attention =
      6.0 * static_cast<double>(c.context) * static_cast<double>(c.heads * c.head_width());
  const double block = std::max(0.0, two.flops_per_token() - one.flops_per_token() - attention);
  const double tp = static_cast<double>(config.parallel.tp);
  const auto us = [&](double flops_per_token) { return N * flops_per_token / kFlopsPerUs / tp; };
  const double stream_us = N * C * 4 / kBytesPerUs;
  const double head_flops = 6.0 * static_cast<double>(c.vocab_size) * C;
  return {
      .embedding = {stream_us, stream_us, stream_us},
      .block = {us(block / 3 + attention / 3), us(block / 3 + 2 * attention / 3), us(block / 3)},
      .head = {us(head_flops), stream_us, stream_us}};
}

std::vector<nn::TransformerPart> forward_stages(const nn::ModelConfig& model, int ranks) {
  std::vector<int> rank_of_stage(static_cast<std::size_t>(ranks));
  std::iota(rank_of_stage.begin(), rank_of_stage.end(), 0);
  TrainConfig config;
  config.model = model;
  const LayerTimes times = estimate_layer_times(config);
  // Of the head, two thirds are its gradients.
  return parts_of(cut_evenly(model, rank_of_stage, times.embedding.forward, times.block.forward,
                             times.head.forward / 3));
}

PipelinePlan plan_pipeline(const TrainConfig& config, int dp, const LayerTimes& times) {
  const auto micro_batches = static_cast<int>(pipeline_micro_batches(config, dp));
  const bool gather = config.parallel.shard == 3, tied = config.model.tied();
  const int ranks = dp * static_cast<int>(config.parallel.ranks_of_a_replica());
  const JobShape job{.ranks = ranks, .local_ranks = ranks};
  PipelinePlan result;
  plan::Schedule compute;
  std::vector<int> rank_of_stage;
  plan::ScheduleRequest request = request_of(config, micro_batches);
  if (config.parallel.pipeline.is_file()) {
    compute = plan::load_schedule(config.parallel.pipeline.schedule);
    rank_of_stage = compute.rank_of_stage;
    if (compute.ranks != config.parallel.pp || compute.micro_batches != micro_batches) {
      throw_error<ConfigError>(
          "schedule {} is for {} ranks and {} micro-batches, but parallel.pp is {} and a pipeline "
          "has {} micro-batches of a step",
          config.parallel.pipeline.schedule, compute.ranks, compute.micro_batches,
          config.parallel.pp, micro_batches);
    }
  } else {
    rank_of_stage = plan::rank_of_stage(request);
  }
  result.stages = parts_of(cut_blocks(config, rank_of_stage, times));
  for (const nn::TransformerPart& part : result.stages) {
    request.times.push_back(times_of(part, times));
    result.costs.push_back({.forward_us = request.times.back().forward,
                            .backward_input_us = request.times.back().backward_input,
                            .backward_weight_us = request.times.back().backward_weight});
    add_stage_bytes(config, job, part, result.costs.back());
  }
  if (!config.parallel.pipeline.is_file()) compute = plan::generate_schedule(request);
  check_trains(compute, config);
  result.schedule = plan::only_compute(compute)
                        ? plan::with_communication(compute, {.tied = tied, .gather = gather})
                        : compute;
  result.report = plan::verify_schedule(result.schedule, result.costs, {.tied = tied});

  plan::Schedule one{.name = "evaluation",
                     .ranks = result.schedule.ranks,
                     .rank_of_stage = rank_of_stage,
                     .micro_batches = 1};
  one.of_rank.resize(static_cast<std::size_t>(one.ranks));
  for (int stage = 0; stage < one.stages(); ++stage) {
    one.of_rank[static_cast<std::size_t>(rank_of_stage[static_cast<std::size_t>(stage)])].push_back(
        {plan::Action::kForward, stage, 0});
  }
  result.evaluation = plan::with_communication(one, {.train = false});
  return result;
}

}  // namespace trireme

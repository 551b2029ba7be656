// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// PipelinePlan: how a run's model is cut into stages, and what each rank of the pipeline does when.
// Pure: the same on all ranks, and for who only wants to look at it (trireme simulate).
#pragma once

#include <cstdint>
#include <vector>

#include "trireme/nn/transformer.h"
#include "trireme/plan/generate_schedule.h"
#include "trireme/plan/schedule.h"
#include "trireme/plan/verify_schedule.h"
#include "trireme/train/train_config.h"

namespace trireme {

// What the layers of a model take, of one micro-batch on one rank.
struct LayerTimes {
  plan::StageTimes embedding, block, head;  // us
};

struct PipelinePlan {
  std::vector<nn::TransformerPart> stages;
  plan::Schedule schedule;              // of a step, with communication
  std::vector<plan::StageCosts> costs;  // by stage
  plan::ScheduleReport report;          // what the schedule takes with these costs
  plan::Schedule evaluation;            // of one micro-batch, without gradients
};

// Micro-batches of a step that one pipeline has: of config and dp ranks of data parallelism.
std::int64_t pipeline_micro_batches(const TrainConfig& config, int dp);

// From the sizes of matrices and a rate of 100 GFLOP/s: only ratios are to be trusted.
LayerTimes estimate_layer_times(const TrainConfig& config);

// Of so many ranks, a part for each, for passes without gradients. Throws ConfigError for fewer
// blocks than ranks.
std::vector<nn::TransformerPart> forward_stages(const nn::ModelConfig& model, int ranks);

// config.model resolved, parallel.pp at least 2. Throws ConfigError: a schedule that is unknown, is
// not of these ranks and micro-batches or cannot run (plan/verify_schedule.h); layers that are not
// the model's; fewer blocks than stages.
PipelinePlan plan_pipeline(const TrainConfig& config, int dp, const LayerTimes& times);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Cuts a model's layers into the stages of a pipeline.
//
// The embedding and the head are layers like any other. A stage is a run of neighbouring layers, at
// least one. The slowest rank sets the pace, so its time is made as small as the ranks' memory
// allows; where that leaves a choice, the slowest stage's; then the rest is made even: the least
// sum of squares of the ranks' times, then of the stages'. A rank with several stages counts as a
// whole, in time and in memory.
//
//   const Schedule schedule = generate_schedule(request);
//   const std::vector<int> first = cut_layers(layers, {.rank_of_stage = schedule.rank_of_stage,
//                                                      .stored = most_stored(schedule),
//                                                      .memory_bytes = std::vector(ranks,
//                                                      budget)});
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/plan/schedule.h"

namespace trireme::plan {

struct LayerCost {
  std::string name = {};
  double time_us = 0;                 // of one micro-batch, forward and backward
  std::int64_t weight_bytes = 0;      // held always: weights, gradients, optimizer state
  std::int64_t activation_bytes = 0;  // of one micro-batch, from its forward until its backward
};

struct CutRequest {
  std::vector<int> rank_of_stage = {};  // one for each stage
  // Micro-batches of each stage that are stored at a time; none: activations are not counted.
  std::vector<int> stored = {};
  std::vector<std::int64_t> memory_bytes = {};  // of each rank; none: no limit
};

// The first layer of each stage, ascending from 0.
//
// The best cut there is if each rank has one stage, or if layers and stages are few (tested: up to
// 11 layers in 6 stages); else the search keeps the most promising part of all cuts, and what it
// finds is at least such that no layer passed on through a run of stages makes it better.
// Deterministic. Cost: for one stage on each rank some milliseconds, else up to some hundred.
// Throws ConfigError: fewer layers than stages, costs below 0, lists of another length than the
// stages or ranks; no cut found that fits into the memory, with what each rank would take and how
// many ranks would do.
std::vector<int> cut_layers(const std::vector<LayerCost>& layers, const CutRequest& request);

// For CutRequest: the most micro-batches of each stage that are stored at a time, from the forward
// until B or W. The stages of a rank may have their most at different times, so their sum is what a
// rank stores at most.
std::vector<int> most_stored(const Schedule& schedule);

}  // namespace trireme::plan

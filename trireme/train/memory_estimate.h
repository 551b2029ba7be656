// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a training step will take, before any of it is taken: bytes by category, counted from shapes
// as the operations keep their tensors, at the moment when there are most at once.
//
//   const MemorySplit memory = estimate_memory(config, {.ranks = 2, .threads = 4});
//   log_info("memory: about {} for each worker", describe_memory(memory));
//
// It counts what the ledger counts (ops/memory/memory_ledger.h), and is tested against it. Not in
// either: the program and its libraries, data files mapped into memory, and what the engines
// between ranks keep.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/train/parameter_memory.h"
#include "trireme/train/pipeline_plan.h"
#include "trireme/train/train_config.h"

namespace trireme {

// Of one rank, at the peak of a step; config.model resolved. Pure, but that the kernels' scratch
// memory depends on the processor's cache. Attention with heads wider than the kernels take
// (ops/kernels/attention_kernels.h) needs more. With a pipeline, of the rank that needs most, its
// layers cut by estimated times. Throws as plan_pipeline() does.
MemorySplit estimate_memory(const TrainConfig& config, const JobShape& job);
// The same of each rank of a pipeline.
std::vector<MemorySplit> pipeline_memory(const TrainConfig& config, const JobShape& job,
                                         const PipelinePlan& plan);

// "1.84 GB (weights 0.50, gradients 0.50, ...)", in MB below 1 GB.
std::string describe_memory(const MemorySplit& memory);

// Throws ConfigError when the estimates of local_ranks ranks together exceed available_bytes (0:
// unknown), with the numbers and what would take less.
void check_memory(const TrainConfig& config, const JobShape& job, std::int64_t available_bytes);

// Throws ConfigError when parallel.gather_budget_bytes is less than a step needs at some moment.
void check_gather_budget(const TrainConfig& config);

// What this host, and the control group of this process, have for the job. 0: unknown.
std::int64_t memory_for_training();

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The schedules of a Pipeline, and which layers its stages have.
//
// Internal to Pipeline.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "trireme/parallel/pipeline/pipeline.h"
#include "trireme/parallel/pipeline/stage_layers.h"
#include "trireme/plan/schedule.h"

namespace trireme {

// What the options ask for, with communication, verified. Throws ConfigError as Pipeline does.
plan::Schedule training_schedule(const PipelineOptions& options, int ranks);

// Forward passes alone on the same ranks, with communication. Ranks do blocks of micro-batches, a
// stage of theirs after the other, and are never more blocks ahead than the stages that lie between
// them are rounds of the ranks.
plan::Schedule forward_schedule(const plan::Schedule& training, int micro_batches);

// The number of layers of each stage, the same on all ranks. Collective, blocking. Throws
// ConfigError as Pipeline does.
std::vector<int> count_layers(const PipelineOptions& options, const plan::Schedule& schedule,
                              const std::vector<NamedLayer>& layers, Group& group);

}  // namespace trireme

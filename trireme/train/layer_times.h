// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How long the layers of a run's model take: what a pipeline is cut by.
#pragma once

#include "trireme/train/pipeline_plan.h"

namespace trireme {

class ParallelGroups;

// Of a micro-batch of the run on this rank, whose other ranks wait meanwhile: a block, the
// embedding and the head, forward and backward, best of some passes. Takes memory for one of each.
LayerTimes measure_layer_times(const TrainConfig& config);

// By config.parallel.pipeline.balance; measured ones are rank 0's, on all ranks. Collective over
// the world, blocking.
LayerTimes layer_times_of_run(const TrainConfig& config, const ParallelGroups& groups);

}  // namespace trireme

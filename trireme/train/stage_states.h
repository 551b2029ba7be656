// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The state of the optimizers of a pipeline's stages, as that of one.
#pragma once

#include <vector>

#include "trireme/optim/optimizer.h"
#include "trireme/parallel/module_layout.h"
#include "trireme/parallel/stage_layouts.h"

namespace trireme {

class Group;

// states: of each of this rank's parts, with elementwise values of its whole layout. whole: of all
// parts of all ranks. What rank 0 returns has values of whole.layout(); what others return is empty
// of values. Collective over the pipeline, blocking. Throws CommError.
std::vector<optim::OptimizerState> join_stage_states(
    const std::vector<std::vector<optim::OptimizerState>>& states,
    const std::vector<const ModuleLayout*>& layouts, const StageLayouts& whole, Group& pipeline);

}  // namespace trireme

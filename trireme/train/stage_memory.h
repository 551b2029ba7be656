// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The memory of one stage of a pipeline, for the verifier of its schedule
// (plan/verify_schedule.h), which knows how many micro-batches are in flight.
//
// What autograd saves of a forward pass is kept until B, or I; what a pass in two parts keeps for
// its second one is, of each matrix, its input and the gradient of its output. The head's gradient
// is made in the forward pass: where its matrix is the embedding's it waits for that of the rows.
#pragma once

#include "trireme/plan/verify_schedule.h"
#include "trireme/train/parameter_memory.h"

namespace trireme {

// Of the stage's parameters: its blocks', the head's matrix, and the first stage's copy of that
// where it is the embedding's, which is only looked up in.
MemorySplit stage_parameter_memory(const TrainConfig& config, const JobShape& job,
                                   const nn::TransformerPart& part);

// Fills in all that is bytes. config.model resolved.
void add_stage_bytes(const TrainConfig& config, const JobShape& job,
                     const nn::TransformerPart& part, plan::StageCosts& costs);

}  // namespace trireme

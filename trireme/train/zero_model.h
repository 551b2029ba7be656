// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A model of which every rank keeps a share (ZeRO): a ShardedModel and an optimizer over shards.
#pragma once

#include <memory>

#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/train/optimizer_recipe.h"
#include "trireme/train/spread_model.h"

namespace trireme {

// options.micro_batches: above 0; no units: the children of a Sequential are (sequential_units.h),
// another module is none. average_decay: of the average of the weights; 0: none. Module and group
// outlive it. Collective, blocking.
// Throws ConfigError: a module that is not f32, a recipe that has no optimizer over shards, a decay
// that is out of range; what ShardedModel's constructor throws.
std::unique_ptr<SpreadModel> make_zero_model(torch::nn::Module& module, Group& group,
                                             const OptimizerRecipe& recipe,
                                             const ShardOptions& options, double average_decay);

}  // namespace trireme

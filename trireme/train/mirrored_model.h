// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A model that every rank has whole: a Replica and an optimizer of torch::optim.
#pragma once

#include <memory>

#include "trireme/parallel/data/replica.h"
#include "trireme/train/optimizer_recipe.h"
#include "trireme/train/spread_model.h"

namespace trireme {

// options.micro_batches: above 0. average_decay: of the average of the weights; 0: none. Module and
// group outlive it. Collective, blocking. Throws as Replica's constructor does; ConfigError for a
// recipe without an optimizer of torch::optim, a decay that is out of range, an average of weights
// that are not f32.
std::unique_ptr<SpreadModel> make_mirrored_model(torch::nn::Module& module, Group& group,
                                                 const OptimizerRecipe& recipe,
                                                 const ReplicaOptions& options,
                                                 double average_decay);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What ParameterServerStrategy (strategy.h) makes of a module: a ServedParameters, with the
// recipe's optimizer on the servers, as a SpreadModel.
//
// Sync: all workers are in the same step, and what they tell one another (WorkerSums) takes steps
// without gradients (ServedParameters::exchange). bounded(k) and async: each is alone.
#pragma once

#include <memory>

#include "trireme/train/optimizer_recipe.h"
#include "trireme/train/served_parameters.h"
#include "trireme/train/spread_model.h"

namespace torch::nn {
class Module;
}

namespace trireme {

struct ServedModel {
  std::unique_ptr<SpreadModel> model;
  // The model's, for who closes the job: the worker leaves it when the program says so, not when
  // the model goes.
  std::shared_ptr<ServedParameters> parameters;
};

// Joins the job: the trained weights, f32, become rank 0's on the servers and all workers; in sync
// the module's other tensors, too. options: optimizer, all_decay and what all workers' settings
// must agree in beside options' are the recipe's. Blocking. Throws ConfigError: a recipe without an
// optimizer for servers; Error: a worker that comes to a job which has begun; what ServedParameters
// throws.
ServedModel make_served_model(torch::nn::Module& module, const OptimizerRecipe& recipe,
                              ServedOptions options, double average_decay);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ModelParts: what ranks that hold one model in parts between them know of its parameters, for
// whoever sums gradients or takes their norm.
//
//   const TensorParallel cut = parallelize(*model, *tp);           // tensor/parallelize.h
//   ShardedModel sharded(*model, *dp, {.parts = cut.parts()});     // does what is below by itself
//
//   auto replica = replicate(*model, *dp);
//   replica.backward(loss);
//   replica.finish_gradients();
//   sum_partial_gradients(*model, cut.parts());
//   const double norm = whole_gradient_norm(*model, cut.parts());
//
// Parameters are named as in named_parameters(). Most are a rank's alone. Some are on several
// ranks, equal: of these a rank may compute a share of the gradient only, where it has a part of
// the tokens or of the work, and one rank counts them where something is summed over the whole
// model.
#pragma once

#include <string>
#include <vector>

namespace torch::nn {
class Module;
}

namespace trireme {

class Group;

// The gradients of these are the sums over the group's ranks, which have the same parameters in the
// same order.
struct PartialGradients {
  Group* group = nullptr;
  std::vector<std::string> parameters = {};
};

// The groups outlive it.
struct ModelParts {
  Group* group = nullptr;  // the ranks that have the model between them; null: this one alone
  std::vector<PartialGradients> partial = {};
  // Equal to those of a lower rank, which counts them.
  std::vector<std::string> counted_elsewhere = {};
};

// Of a model that is cut in two ways at once. group: the ranks that have it between them. Sums of
// the first way are taken first.
ModelParts joined(const ModelParts& first, const ModelParts& second, Group* group);

// grad() of the partial parameters becomes the sum, the same bits on all ranks that have it; one
// that is undefined counts as zeros. Collective over the group, blocking. Cost: an all_reduce for
// each PartialGradients. Throws CommError; ConfigError for a name that the module does not have.
void sum_partial_gradients(torch::nn::Module& module, const ModelParts& parts);

// Of the gradients of the whole model, the same bits on all ranks. After sum_partial_gradients().
// Collective over the group, blocking: 8 bytes. Throws as above.
double whole_gradient_norm(const torch::nn::Module& module, const ModelParts& parts);

}  // namespace trireme

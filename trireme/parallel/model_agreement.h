// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// That the ranks of a group start with the same model.
#pragma once

namespace torch::nn {
class Module;
}

namespace trireme {

class Group;

// Compares names, shapes and dtypes of all parameters and buffers, in their order, with rank 0's.
// Collective, blocking. Throws ConfigError on all ranks, naming the first rank that differs and the
// first difference: "parameter 3 is fc.bias f32 [10] on rank 2, fc.bias f32 [12] on rank 0".
void check_same_model(Group& group, const torch::nn::Module& module);

// Parameters (also those that require no gradient) and buffers become the root's. Collective,
// blocking. The module as check_same_model() wants it, on the CPU.
void broadcast_model(Group& group, torch::nn::Module& module, int root = 0);
// Buffers alone: running means and the like.
void broadcast_module_buffers(Group& group, torch::nn::Module& module, int root = 0);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// That the ranks of a group start with the same model.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace torch::nn {
class Module;
}

namespace trireme {

class Group;

// Compares names, shapes and dtypes of all parameters and buffers, in their order, and which are
// tied or require a gradient, with rank 0's. Collective, blocking. Throws ConfigError on all ranks,
// naming the first rank that differs and the first difference: "the ranks' models differ: at place
// 3 rank 2 has parameter fc.bias Float [10], rank 0 has parameter fc.bias Float [12]".
void check_same_model(Group& group, const torch::nn::Module& module);

// The same for anything that lines say, one thing each: "the ranks' <what> differ: ...".
void check_same_lines(Group& group, std::string_view what, const std::vector<std::string>& lines);

// Parameters (also those that require no gradient) and buffers become the root's. Collective,
// blocking. The module as check_same_model() wants it; from other devices than the CPU it travels
// by way of a copy.
void broadcast_model(Group& group, torch::nn::Module& module, int root = 0);
// Buffers alone: running means and the like.
void broadcast_module_buffers(Group& group, torch::nn::Module& module, int root = 0);

}  // namespace trireme

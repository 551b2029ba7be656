// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A module's parameters and buffers by name, and what checkpoints keep of them.
#pragma once

#include <cstdint>
#include <string>

#include "trireme/train/spread_model.h"

namespace torch::nn {
class Module;
}

namespace trireme {

using NamedTensors = SpreadModel::NamedTensors;

// Parameters, then buffers, in the order of the module. The module's own memory.
NamedTensors named_weights(const torch::nn::Module& module);
// Each of `to` becomes the value of its name, in place, outside of autograd. Throws
// CheckpointError: a name that is missing or too many, another shape.
void assign_weights(const NamedTensors& values, const NamedTensors& to);

// <folder>/step-<step>/model.safetensors, see checkpoint.h, which says what it throws. Returns the
// checkpoint's path. Tensors on the CPU, of dtypes that travel.
std::string save_named_weights(const NamedTensors& values, const std::string& folder,
                               std::int64_t step);
// path as resolve_checkpoint() wants it. Throws CheckpointError.
NamedTensors load_named_weights(const std::string& path);

}  // namespace trireme

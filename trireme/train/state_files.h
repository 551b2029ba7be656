// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The files of a checkpoint that hold a model's weights and its optimizer's state, from and to flat
// f32 buffers (optim/flat_layout.h). The same whoever kept them: ranks that share them
// (model_state.h) or parameter servers (served_state.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "trireme/checkpoint/checkpoint.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/module_layout.h"

namespace torch::nn {
class Module;
}

namespace trireme {

// File names inside a checkpoint, and keys of its state.
inline constexpr char kModelFile[] = "model.safetensors";
inline constexpr char kOptimizerFile[] = "optimizer.safetensors";
inline constexpr char kAverageFile[] = "average.safetensors";
inline constexpr char kRouterBiasFile[] = "router_bias.safetensors";
inline constexpr char kOptimizerNameKey[] = "optimizer";
inline constexpr char kOptimizerStepsKey[] = "optimizer_steps";
inline constexpr char kAverageUpdatesKey[] = "average_updates";

// flat: [layout.size]. Written on return.
void add_weights(CheckpointWriter& writer, const ModuleLayout& layout, const at::Tensor& flat,
                 const char* file_name = kModelFile);
// Fills flat f32 weights from the checkpoint's model, or from another file of it with the same
// tensors (kAverageFile); of parameters that are parts, the parts. Throws CheckpointError on
// another shape (which tensor, both shapes), a missing or a surplus tensor, a missing file. stage:
// the layout has some of the model's tensors; none is surplus then.
void load_weights(const Checkpoint& checkpoint, const ModuleLayout& layout,
                  const at::Tensor& weights, const char* file_name = kModelFile,
                  bool stage = false);

// Values of elementwise parts are whole, [layout.size]. Written on return.
void add_optimizer(CheckpointWriter& writer, const ModuleLayout& layout,
                   std::span<const optim::OptimizerState> parts);
// Fills the parts' values, of elementwise ones those of their pieces. Throws as load_weights().
void load_optimizer(const Checkpoint& checkpoint, const ModuleLayout& layout,
                    std::span<const optim::OptimizerState> parts, bool stage = false);
// Throws CheckpointError for a checkpoint that another method than this one wrote.
void check_optimizer(const Checkpoint& checkpoint, const std::string& name);

// Fills average, f32 [the layout's size], and returns how many updates it is of. Throws
// CheckpointError also where there is none of the weights, though decay is above 0.
std::int64_t load_average(const Checkpoint& checkpoint, const ModuleLayout& layout, double decay,
                          const at::Tensor& average, bool stage = false);

// The biases of the model's routers (nn/router_bias.h), in a file of their own; nothing where they
// have none. Loading throws as load_weights().
// The layout of its buffers, one after the other, and their values in f32.
ModuleLayout buffer_layout(const torch::nn::Module& model);
at::Tensor buffer_values(const torch::nn::Module& model);
void add_router_bias(CheckpointWriter& writer, const torch::nn::Module& model);
void load_router_bias(const Checkpoint& checkpoint, const torch::nn::Module& model,
                      bool stage = false);

// A whole number of a checkpoint's state. Throws CheckpointError.
std::int64_t checkpoint_number(const Checkpoint& checkpoint, const std::string& key);

}  // namespace trireme

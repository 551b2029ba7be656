// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where the parameters of a module lie in flat buffers (optim/flat_layout.h).
//
//   const ModuleLayout layout = make_layout(*model, units);  // units: subtrees of the model
//   layout.entries[0].name;                                  // "embedding.weight", at offset 0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "trireme/nn/layer.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/optim/optimizer.h"

namespace torch::nn {
class Module;
}

namespace trireme {

struct ModuleLayout {
  std::vector<FlatEntry> entries;      // ascending
  std::vector<at::Tensor> parameters;  // by entry
  // First the parameters that belong to no unit (empty where there are none), then the units.
  std::vector<FlatSegment> units;
  std::vector<std::size_t> unit_of;  // by entry
  // By entry: two dims and more, of no embedding, and where an nn::Layer owns it, of no head.
  std::vector<bool> hidden_matrix;
  // By entry: of which larger parameter it is a part, as the nn::Layer that owns it says.
  std::vector<nn::ParameterPart> parts;
  std::vector<bool> stack;         // by entry: nn::Layer::is_stack()
  std::int64_t size = 0;           // elements, a multiple of kShardBlock
  std::vector<at::Tensor> frozen;  // parameters that require no gradient: not in the buffers
};

// Ranks with other parts of the same parameters have the same offsets: each part is given the room
// of the largest, so that what is equal on all of them is rounded by the same chances, and begins
// at kPartAlignment, so that it shares no block of 8-bit codes with what is not.
inline constexpr std::int64_t kPartAlignment = 256;

// Which parameters, by name; empty: all.
using ParameterFilter = std::function<bool(const std::string& name)>;

// Parameters that require a gradient, tied ones once, under their first name: those of no unit in
// the order in which they are registered, then unit by unit. A unit is a module of the tree; a
// parameter that several hold belongs to the first. Where there are units, those of none begin each
// at a block (kShardBlock), so that the blocks of a model are the same whichever of its parts lie
// beside one another. Throws ShapeError: nothing to train, parameters on several devices or of
// several dtypes (names two of them), a unit that is not in the module.
ModuleLayout make_layout(const torch::nn::Module& module,
                         const std::vector<const torch::nn::Module*>& units = {},
                         const ParameterFilter& filter = {});

// As an optimizer sees them. What decays: all of two dims and more, a stack's first not counted.
std::vector<optim::OptimizerParameter> optimizer_parameters(const ModuleLayout& layout);

// By what stands behind a parameter of the layout.
using EntryOf = std::unordered_map<const c10::TensorImpl*, std::size_t>;
EntryOf entries_by_parameter(const ModuleLayout& layout);

std::vector<std::string> names_of(const std::vector<FlatEntry>& entries);

}  // namespace trireme

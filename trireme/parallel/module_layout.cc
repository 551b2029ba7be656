// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/module_layout.h"

#include <torch/nn/module.h>
#include <torch/nn/modules/embedding.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "trireme/base/error.h"
#include "trireme/nn/layer.h"
#include "trireme/parallel/flat_parameters.h"

namespace trireme {
namespace {

std::int64_t round_up(std::int64_t elements, std::int64_t unit) {
  return (elements + unit - 1) / unit * unit;
}

using UnitOf = std::unordered_map<const c10::TensorImpl*, std::size_t>;

// Elements that an entry takes up.
std::int64_t room_of(const at::Tensor& parameter, const nn::ParameterPart& part,
                     std::int64_t alignment) {
  if (part.dim < 0 || part.largest == 0) return round_up(parameter.numel(), alignment);
  return round_up(parameter.numel() / part.size * part.largest, alignment);
}

// The units of parameters, by number; what is in none is not in the map.
UnitOf number_units(const torch::nn::Module& module,
                    const std::vector<const torch::nn::Module*>& units) {
  // Not modules(), which wants the module itself in a shared_ptr.
  std::unordered_set<const torch::nn::Module*> tree;
  module.apply([&](const torch::nn::Module& part) { tree.insert(&part); });
  UnitOf unit_of;
  for (std::size_t i = 0; i < units.size(); ++i) {
    if (!tree.contains(units[i])) {
      throw_error<ShapeError>("unit {} is not a module of {}: units are subtrees of the model", i,
                              module.name());
    }
    for (const at::Tensor& parameter : units[i]->parameters()) {
      unit_of.emplace(parameter.unsafeGetTensorImpl(), i + 1);
    }
  }
  return unit_of;
}

// What the owners of parameters say of them.
struct Said {
  std::unordered_set<const c10::TensorImpl*> stacks;
  // Parameters of embeddings, and what layers say are no hidden matrices: heads.
  std::unordered_set<const c10::TensorImpl*> embeddings;
  std::unordered_map<const c10::TensorImpl*, nn::ParameterPart> parts;
};

Said ask_owners(const torch::nn::Module& module) {
  Said said;
  module.apply([&](const torch::nn::Module& part) {
    const auto* layer = dynamic_cast<const nn::Layer*>(&part);
    const bool embeds = dynamic_cast<const torch::nn::EmbeddingImpl*>(&part) != nullptr ||
                        dynamic_cast<const torch::nn::EmbeddingBagImpl*>(&part) != nullptr;
    for (const auto& item : part.named_parameters(/*recurse=*/false)) {
      const bool hidden =
          layer != nullptr ? nn::is_hidden_matrix(layer->role(item.key())) : !embeds;
      if (!hidden) said.embeddings.insert(item.value().unsafeGetTensorImpl());
      if (layer != nullptr) {
        said.parts[item.value().unsafeGetTensorImpl()] = layer->part(item.key());
        if (layer->is_stack(item.key())) said.stacks.insert(item.value().unsafeGetTensorImpl());
      }
    }
  });
  return said;
}

void check_alike(const std::vector<FlatEntry>& entries, const std::vector<at::Tensor>& parameters) {
  for (std::size_t i = 1; i < entries.size(); ++i) {
    const at::Tensor& first = parameters[0];
    const at::Tensor& other = parameters[i];
    if (other.device() != first.device()) {
      throw_error<ShapeError>("parameters lie on one device: {} is on {}, {} on {}",
                              entries[0].name, first.device().str(), entries[i].name,
                              other.device().str());
    }
    if (other.scalar_type() != first.scalar_type()) {
      throw_error<ShapeError>(
          "parameters have one dtype: {} is {}, {} is {}; convert the model with .to() first",
          entries[0].name, c10::toString(first.scalar_type()), entries[i].name,
          c10::toString(other.scalar_type()));
    }
  }
}

}  // namespace

ModuleLayout make_layout(const torch::nn::Module& module,
                         const std::vector<const torch::nn::Module*>& units,
                         const ParameterFilter& filter) {
  const UnitOf unit_of = number_units(module, units);
  const Said said = ask_owners(module);
  struct Found {
    std::string name;
    at::Tensor tensor;
  };
  std::vector<std::vector<Found>> found(units.size() + 1);
  std::unordered_map<const c10::TensorImpl*, bool> seen;
  ModuleLayout layout;
  for (const auto& item : module.named_parameters()) {
    const c10::TensorImpl* id = item.value().unsafeGetTensorImpl();
    if (!seen.emplace(id, true).second || (filter && !filter(item.key()))) continue;
    if (!item.value().requires_grad()) {
      layout.frozen.push_back(item.value());
      continue;
    }
    const auto unit = unit_of.find(id);
    found[unit == unit_of.end() ? 0 : unit->second].push_back({item.key(), item.value()});
  }
  const bool has_parts =
      std::ranges::any_of(said.parts, [](const auto& one) { return one.second.dim >= 0; });
  const std::int64_t alignment = has_parts ? kPartAlignment : FlatParameters::kAlignment;
  for (std::size_t unit = 0; unit < found.size(); ++unit) {
    const std::int64_t begin = layout.size;
    const std::int64_t unit_alignment = unit == 0 && !units.empty() ? kShardBlock : alignment;
    for (const Found& one : found[unit]) {
      layout.entries.push_back(
          {one.name, one.tensor.sizes().vec(), layout.size, one.tensor.numel()});
      layout.parameters.push_back(one.tensor);
      layout.unit_of.push_back(unit);
      layout.hidden_matrix.push_back(one.tensor.dim() > 1 &&
                                     !said.embeddings.contains(one.tensor.unsafeGetTensorImpl()));
      const auto part = said.parts.find(one.tensor.unsafeGetTensorImpl());
      layout.parts.push_back(part == said.parts.end() ? nn::ParameterPart() : part->second);
      layout.stack.push_back(said.stacks.contains(one.tensor.unsafeGetTensorImpl()));
      layout.size += room_of(one.tensor, layout.parts.back(), unit_alignment);
    }
    layout.size = round_up(layout.size, kShardBlock);
    layout.units.push_back({begin, layout.size});
  }
  if (layout.size == 0) throw_error<ShapeError>("the module has no parameters to train");
  check_alike(layout.entries, layout.parameters);
  return layout;
}

std::vector<optim::OptimizerParameter> optimizer_parameters(const ModuleLayout& layout) {
  std::vector<optim::OptimizerParameter> parameters;
  for (std::size_t i = 0; i < layout.entries.size(); ++i) {
    const FlatEntry& entry = layout.entries[i];
    const bool decays = entry.shape.size() > (layout.stack[i] ? 2 : 1);
    parameters.push_back({entry, decays, layout.hidden_matrix[i], layout.stack[i],
                          !layout.parts.empty() && layout.parts[i].dim >= 0});
  }
  return parameters;
}

EntryOf entries_by_parameter(const ModuleLayout& layout) {
  EntryOf entry_of;
  for (std::size_t i = 0; i < layout.parameters.size(); ++i) {
    entry_of[layout.parameters[i].unsafeGetTensorImpl()] = i;
  }
  return entry_of;
}

std::vector<std::string> names_of(const std::vector<FlatEntry>& entries) {
  std::vector<std::string> names;
  for (const FlatEntry& entry : entries) names.push_back(entry.name);
  return names;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/layer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <unordered_map>
#include <unordered_set>

#include "trireme/base/error.h"
#include "trireme/nn/parameter_memory.h"

namespace trireme::nn {
namespace {

// Owner of each parameter, and its name there.
struct Owner {
  const torch::nn::Module* module;
  std::string name;
};

using Owners = std::unordered_map<const c10::TensorImpl*, Owner>;

void collect_owners(const torch::nn::Module& module, Owners& owners) {
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    owners.try_emplace(item.value().unsafeGetTensorImpl(), Owner{&module, item.key()});
  }
  for (const auto& child : module.children()) {
    collect_owners(*child, owners);
  }
}

}  // namespace

void Layer::keep_part(const std::string& parameter, const ParameterPart& part) {
  at::Tensor tensor = named_parameters(/*recurse=*/false)[parameter];
  const bool fits = part.dim >= 0 && part.dim < tensor.dim() && !parts_.contains(parameter) &&
                    tensor.size(part.dim) == part.whole && part.begin >= 0 && part.size > 0 &&
                    part.begin + part.size <= part.whole;
  if (!fits) {
    throw_error<ShapeError>("{} of [{}] cannot become the part [{}, {}) of {} of its dim {}{}",
                            parameter, fmt::join(tensor.sizes(), ", "), part.begin,
                            part.begin + part.size, part.whole, part.dim,
                            parts_.contains(parameter) ? ": it is a part already" : "");
  }
  const at::NoGradGuard no_grad;
  const at::Tensor there = tensor.detach().narrow(part.dim, part.begin, part.size);
  const at::Tensor kept = at::empty(there.sizes(), tensor.options().requires_grad(false));
  if (has_memory(tensor)) kept.copy_(there);
  tensor.set_data(kept);
  parts_[parameter] = part;
}

ParameterPart Layer::part(const std::string& parameter) const {
  const auto found = parts_.find(parameter);
  return found == parts_.end() ? ParameterPart() : found->second;
}

std::vector<std::int64_t> RoledParameter::whole_shape() const {
  std::vector<std::int64_t> shape = tensor.sizes().vec();
  if (part.dim >= 0) shape[static_cast<std::size_t>(part.dim)] = part.whole;
  return shape;
}

std::vector<RoledParameter> parameters_with_roles(const torch::nn::Module& module) {
  Owners owners;
  collect_owners(module, owners);
  std::unordered_set<const c10::TensorImpl*> seen;
  std::vector<RoledParameter> parameters;
  for (const auto& item : module.named_parameters()) {
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) {
      continue;
    }
    const Owner& owner = owners.at(item.value().unsafeGetTensorImpl());
    const auto* layer = dynamic_cast<const Layer*>(owner.module);
    if (layer == nullptr) {
      throw_error<ShapeError>(
          "parameter {} belongs to a module that does not say what it is for; derive the module "
          "from trireme::nn::Layer",
          item.key());
    }
    parameters.push_back(
        {item.key(), item.value(), layer->role(owner.name), layer->part(owner.name)});
  }
  return parameters;
}

}  // namespace trireme::nn

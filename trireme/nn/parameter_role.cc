// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/parameter_role.h"

#include <unordered_map>
#include <unordered_set>

#include "trireme/base/error.h"

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
    parameters.push_back({item.key(), item.value(), layer->role(owner.name)});
  }
  return parameters;
}

}  // namespace trireme::nn

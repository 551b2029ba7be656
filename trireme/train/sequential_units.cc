// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/sequential_units.h"

#include <ATen/core/Tensor.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/container/sequential.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme {
namespace {

using torch::nn::AnyModule;
using torch::nn::Module;
using torch::nn::SequentialImpl;

// Stands in a Sequential for the module of a unit.
struct UnitImpl : Module {
  UnitImpl(AnyModule inner_in, ShardedModel& sharded_in)
      : inner(std::move(inner_in)), sharded(sharded_in) {}

  at::Tensor forward(at::Tensor x) {
    return sharded.run(*inner.ptr(), x, [this](const at::Tensor& input) {
      torch::nn::AnyValue output = inner.any_forward(input);
      if (const auto* tensor = output.try_get<at::Tensor>()) return *tensor;
      throw_error<ConfigError>(
          "a {} in a Sequential makes something else than a tensor: stage 3 of ZeRO gathers the "
          "children of a Sequential one by one and wants tensors between them; use stage 2, or "
          "wrap it in a module that makes a tensor",
          inner.ptr()->name());
    });
  }

  AnyModule inner;
  ShardedModel& sharded;
};

// How many of the children have the parameter.
std::unordered_map<const c10::TensorImpl*, int> holders_of_parameters(
    const std::unordered_set<const Module*>& children) {
  std::unordered_map<const c10::TensorImpl*, int> holders;
  for (const Module* child : children) {
    std::unordered_set<const c10::TensorImpl*> own;
    for (const at::Tensor& parameter : child->parameters()) {
      own.insert(parameter.unsafeGetTensorImpl());
    }
    for (const c10::TensorImpl* parameter : own) ++holders[parameter];
  }
  return holders;
}

}  // namespace

std::vector<const Module*> sequential_units(const Module& module) {
  const auto* sequential = dynamic_cast<const SequentialImpl*>(&module);
  if (sequential == nullptr) return {};
  std::vector<const Module*> children;
  for (const AnyModule& place : *sequential) {
    const Module* child = place.ptr().get();
    if (std::ranges::count(children, child) == 0) children.push_back(child);
  }
  const auto holders = holders_of_parameters({children.begin(), children.end()});
  std::erase_if(children, [&](const Module* child) {
    const std::vector<at::Tensor> parameters = child->parameters();
    const bool shared = std::ranges::any_of(parameters, [&](const at::Tensor& parameter) {
      return holders.at(parameter.unsafeGetTensorImpl()) > 1;
    });
    return shared || std::ranges::none_of(parameters, &at::Tensor::requires_grad);
  });
  return children;
}

struct SequentialRunner::Places {
  std::vector<std::pair<AnyModule*, AnyModule>> replaced;  // the place, and what stood there
};

SequentialRunner::SequentialRunner(Module& module, const std::vector<const Module*>& units,
                                   ShardedModel& sharded)
    : places_(std::make_unique<Places>()) {
  auto* sequential = dynamic_cast<SequentialImpl*>(&module);
  if (sequential == nullptr) return;
  for (AnyModule& place : *sequential) {
    if (std::ranges::count(units, place.ptr().get()) == 0) continue;
    places_->replaced.emplace_back(&place, place);
    place = AnyModule(std::make_shared<UnitImpl>(place, sharded));
  }
}

SequentialRunner::~SequentialRunner() {
  for (auto& [place, inner] : places_->replaced) *place = std::move(inner);
}

}  // namespace trireme

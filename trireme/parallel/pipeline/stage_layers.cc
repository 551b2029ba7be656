// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/pipeline/stage_layers.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/dropout.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <mutex>
#include <tuple>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/parallel/pipeline/stage.h"

namespace trireme {
namespace {

using at::Tensor;
using torch::nn::AnyValue;
using Pair = std::tuple<Tensor, Tensor>;
using Triple = std::tuple<Tensor, Tensor, Tensor>;
using Quadruple = std::tuple<Tensor, Tensor, Tensor, Tensor>;

constexpr int kTimings = 3;

template <typename Layer>
bool is_in_place(const torch::nn::Module& module) {
  const auto* layer = module.as<Layer>();
  return layer != nullptr && layer->options.inplace();
}

template <typename... Layers>
bool any_in_place(const torch::nn::Module& module) {
  return (is_in_place<Layers>(module) || ...);
}

bool changes_its_input(const torch::nn::Module& module) {
  using namespace torch::nn;  // NOLINT
  return any_in_place<ELUImpl, SELUImpl, HardtanhImpl, LeakyReLUImpl, ReLUImpl, ReLU6Impl,
                      RReLUImpl, CELUImpl, ThresholdImpl, DropoutImpl, Dropout2dImpl, Dropout3dImpl,
                      AlphaDropoutImpl, FeatureAlphaDropoutImpl>(module);
}

template <typename Tuple>
bool take_tuple(AnyValue& value, std::vector<Tensor>& tensors) {
  const Tuple* tuple = value.try_get<Tuple>();
  if (tuple == nullptr) return false;
  std::apply([&](const auto&... each) { tensors = {each...}; }, *tuple);
  return true;
}

// Undefined at the end: a vector.
std::vector<Tensor> tensors_of(AnyValue value, const std::string& layer) {
  if (const Tensor* tensor = value.try_get<Tensor>()) return {*tensor};
  std::vector<Tensor> tensors;
  if (const auto* vector = value.try_get<std::vector<Tensor>>()) {
    tensors = *vector;
    tensors.emplace_back();
    return tensors;
  }
  if (take_tuple<Pair>(value, tensors) || take_tuple<Triple>(value, tensors) ||
      take_tuple<Quadruple>(value, tensors)) {
    return tensors;
  }
  throw_error<ShapeError>(
      "layer {} gives a {}: what goes to the next layer is a tensor, a vector of tensors or a "
      "tuple of 2 to {}",
      layer, c10::demangle(value.type_info().name()), kMostActivations);
}

AnyValue unpack(std::vector<Tensor> tensors) {
  if (!tensors.back().defined()) {
    tensors.pop_back();
    return AnyValue(std::move(tensors));
  }
  switch (tensors.size()) {
    case 1:
      return AnyValue(tensors[0]);
    case 2:
      return AnyValue(Pair(tensors[0], tensors[1]));
    case 3:
      return AnyValue(Triple(tensors[0], tensors[1], tensors[2]));
    default:
      return AnyValue(Quadruple(tensors[0], tensors[1], tensors[2], tensors[3]));
  }
}

double us_of(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

// The process's random numbers as they were.
class SameRandomNumbers {
 public:
  SameRandomNumbers() : generator_(at::globalContext().defaultGenerator(at::kCPU)) {
    const std::lock_guard lock(generator_.mutex());
    state_ = generator_.get_state();
  }
  ~SameRandomNumbers() {
    const std::lock_guard lock(generator_.mutex());
    generator_.set_state(state_);
  }
  SameRandomNumbers(const SameRandomNumbers&) = delete;
  SameRandomNumbers& operator=(const SameRandomNumbers&) = delete;

 private:
  at::Generator generator_;
  Tensor state_;
};

// The layer's running means as they were.
class SameBuffers {
 public:
  explicit SameBuffers(const torch::nn::Module& layer) : buffers_(layer.buffers()) {
    for (const Tensor& buffer : buffers_) before_.push_back(buffer.detach().clone());
  }
  ~SameBuffers() {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_(before_[i]);
  }
  SameBuffers(const SameBuffers&) = delete;
  SameBuffers& operator=(const SameBuffers&) = delete;

 private:
  std::vector<Tensor> buffers_, before_;
};

std::vector<Tensor> with_gradient(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> result;
  for (const Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.requires_grad()) result.push_back(tensor);
  }
  return result;
}

std::vector<Tensor> leaves_of(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> leaves;
  for (const Tensor& tensor : tensors) {
    leaves.push_back(tensor.defined() ? tensor.detach().clone() : tensor);
    if (tensor.defined() && tensor.is_floating_point()) leaves.back().requires_grad_();
  }
  return leaves;
}

// Of one pass through the layer; inputs become its outputs. No gradient of a parameter is kept.
double time_of(const NamedLayer& layer, bool first, std::vector<Tensor>& inputs) {
  const SameBuffers buffers(*layer.module.ptr());
  StageLayers alone({layer});
  const std::vector<Tensor> leaves = first ? inputs : leaves_of(inputs);
  return us_of([&] {
    inputs = tensors_of(first ? alone.run_first(leaves) : alone.run(leaves), layer.name);
    std::vector<Tensor> ends = with_gradient(alone.parameters());
    for (const Tensor& leaf : with_gradient(first ? std::vector<Tensor>() : leaves)) {
      ends.push_back(leaf);
    }
    const std::vector<Tensor> outputs = with_gradient(inputs);
    if (outputs.empty() || ends.empty()) return;
    std::vector<Tensor> ones;
    for (const Tensor& output : outputs) ones.push_back(at::ones_like(output));
    torch::autograd::grad(outputs, ends, ones, /*retain_graph=*/{}, /*create_graph=*/false,
                          /*allow_unused=*/true);
  });
}

}  // namespace

std::vector<NamedLayer> layers_of(const torch::nn::Sequential& net) {
  std::vector<NamedLayer> layers;
  const auto children = net->named_children();
  for (const torch::nn::AnyModule& module : *net) {
    layers.push_back({children[layers.size()].key(), module});
  }
  return layers;
}

void free_memory(torch::nn::Module& layer) {
  const auto free = [](Tensor tensor) {
    tensor.mutable_grad().reset();
    tensor.set_data(at::empty({0}, tensor.options().requires_grad(false)));
  };
  for (const Tensor& parameter : layer.parameters()) free(parameter);
  for (const Tensor& buffer : layer.buffers()) free(buffer);
}

std::vector<plan::LayerCost> layer_costs(const std::vector<NamedLayer>& layers,
                                         const std::vector<Tensor>& example) {
  std::vector<plan::LayerCost> costs;
  const at::AutoGradMode with_gradients(true);
  const SameRandomNumbers random_numbers;
  std::vector<Tensor> values = example;
  for (const NamedLayer& layer : layers) {
    plan::LayerCost cost{.name = layer.name};
    for (const Tensor& parameter : layer.module.ptr()->parameters()) {
      cost.weight_bytes += static_cast<std::int64_t>(parameter.nbytes());
    }
    cost.time_us = static_cast<double>(cost.weight_bytes);
    if (!example.empty()) {
      std::vector<Tensor> outputs;
      cost.time_us = std::numeric_limits<double>::infinity();
      for (int i = 0; i < kTimings; ++i) {
        outputs = values;
        cost.time_us = std::min(cost.time_us, time_of(layer, costs.empty(), outputs));
      }
      values = std::move(outputs);
    }
    costs.push_back(cost);
  }
  return costs;
}

StageLayers::StageLayers(std::vector<NamedLayer> layers) : layers_(std::move(layers)) {
  for (const NamedLayer& layer : layers_) {
    register_module(layer.name, layer.module.ptr());
    for (const auto& module : layer.module.ptr()->modules()) {
      in_place_ = in_place_ || changes_its_input(*module);
    }
  }
}

AnyValue StageLayers::run_from(std::size_t layer, AnyValue value) {
  for (; layer < layers_.size(); ++layer) {
    value = layers_[layer].module.any_forward(std::move(value));
  }
  return value;
}

AnyValue StageLayers::run_first(const std::vector<Tensor>& arguments) {
  torch::nn::AnyModule& first = layers_.front().module;
  const auto& a = arguments;
  switch (a.size()) {
    case 1:
      return run_from(1, first.any_forward(a[0]));
    case 2:
      return run_from(1, first.any_forward(a[0], a[1]));
    case 3:
      return run_from(1, first.any_forward(a[0], a[1], a[2]));
    case 4:
      return run_from(1, first.any_forward(a[0], a[1], a[2], a[3]));
    default:
      throw_error<ShapeError>("layer {} is called with {} tensors: give 1 to {}",
                              layers_.front().name, a.size(), kMostActivations);
  }
}

AnyValue StageLayers::run(const std::vector<Tensor>& inputs) {
  return run_from(0, unpack(own(inputs)));
}

// A leaf, or a view of one, refuses to be changed, and what another stage of this rank has saved
// for its gradient must not be.
std::vector<Tensor> StageLayers::own(const std::vector<Tensor>& inputs) const {
  if (!in_place_) return inputs;
  std::vector<Tensor> copies;
  for (const Tensor& input : inputs) copies.push_back(input.defined() ? input.clone() : input);
  return copies;
}

std::vector<Tensor> StageLayers::pack(AnyValue value) const {
  const std::string& name = layers_.back().name;
  std::vector<Tensor> tensors = tensors_of(std::move(value), name);
  if (tensors.size() <= kMostActivations) return tensors;
  throw_error<ShapeError>("layer {} gives a vector of {} tensors to the next stage: at most {}",
                          name, tensors.size() - 1, kMostActivations - 1);
}

}  // namespace trireme

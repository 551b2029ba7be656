// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StageLayers: neighbouring layers of a torch::nn::Sequential, as a stage of a pipeline runs them.
//
// Internal to Pipeline.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/any.h>

#include <cstddef>
#include <string>
#include <vector>

#include "trireme/plan/cut_layers.h"

namespace torch::nn {
class Sequential;
}

namespace trireme {

// A layer of a net.
struct NamedLayer {
  std::string name;
  torch::nn::AnyModule module;  // a reference
};

// All, in their order.
std::vector<NamedLayer> layers_of(const torch::nn::Sequential& net);

// Parameters and buffers give their memory back. They are of size 0 afterwards.
void free_memory(torch::nn::Module& layer);

// What a layer costs, by its parameters or, with arguments of the first one, by its time for them,
// forward and backward. Throws what a layer does.
std::vector<plan::LayerCost> layer_costs(const std::vector<NamedLayer>& layers,
                                         const std::vector<at::Tensor>& example);

// A module of the layers with their names in the net.
class StageLayers final : public torch::nn::Module {
 public:
  explicit StageLayers(std::vector<NamedLayer> layers);

  // The first layers of a net, called with so many arguments; gives what the last one does.
  torch::nn::AnyValue run_first(const std::vector<at::Tensor>& arguments);
  // Those of a later stage; inputs: what pack() of the stage before gave.
  torch::nn::AnyValue run(const std::vector<at::Tensor>& inputs);
  // What the last layer gave as tensors, which say what it was: of a vector the last one is
  // undefined. Throws ShapeError for what is neither a tensor nor a vector or tuple of them, or
  // more than kMostActivations.
  std::vector<at::Tensor> pack(torch::nn::AnyValue value) const;

 private:
  torch::nn::AnyValue run_from(std::size_t layer, torch::nn::AnyValue value);
  // Leaves, as layers may take them that change their input in place.
  std::vector<at::Tensor> own(const std::vector<at::Tensor>& inputs) const;

  std::vector<NamedLayer> layers_;
  bool in_place_ = false;
};

}  // namespace trireme

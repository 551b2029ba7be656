// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a parameter is for, told by the layer that owns it: decides its initial values and whether
// it decays.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <string>
#include <vector>

namespace trireme::nn {

enum class ParameterRole {
  kEmbedding,       // a row for each token or position: an embedding, or the head
  kMatrix,          // of a linear layer
  kResidualMatrix,  // of a projection back into the residual stream
  kNormWeight,
  kBias,
};

// Weight decay applies to matrices; norms and biases are free of it.
constexpr bool decays(ParameterRole role) {
  return role != ParameterRole::kNormWeight && role != ParameterRole::kBias;
}

// What muon takes for itself: matrices that map activations to activations.
constexpr bool is_hidden_matrix(ParameterRole role) {
  return role == ParameterRole::kMatrix || role == ParameterRole::kResidualMatrix;
}

// A module that owns parameters and knows their roles. The layers of nn/ derive from it.
class Layer : public torch::nn::Module {
 public:
  // parameter: the name under which this module (not a child) registered it.
  virtual ParameterRole role(const std::string& parameter) const = 0;
};

struct RoledParameter {
  std::string name;  // full, as in named_parameters()
  at::Tensor tensor;
  ParameterRole role;
};

// All parameters of the module in registration order, tied ones once under their first name (the
// order and names of FlatParameters). Throws ShapeError, naming the parameter, when its owner is
// not a Layer.
std::vector<RoledParameter> parameters_with_roles(const torch::nn::Module& module);

}  // namespace trireme::nn

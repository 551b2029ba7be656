// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Layer: a module that owns parameters and knows what they are for, and of which larger ones they
// are parts, if they are.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "trireme/nn/parameter_role.h"

namespace trireme::nn {

// Elements [begin, begin + size) of dim `dim` of a parameter that has `whole` there; all others are
// not here. dim -1: all of it is.
struct ParameterPart {
  int dim = -1;
  std::int64_t begin = 0;
  std::int64_t size = 0;
  std::int64_t whole = 0;
  // Of the parts that there are of it elsewhere, the most elements in that dim; 0: size.
  std::int64_t largest = 0;
};

// The layers of nn/ derive from it. Not thread-safe.
class Layer : public torch::nn::Module {
 public:
  // parameter: the name under which this module (not a child) registered it.
  virtual ParameterRole role(const std::string& parameter) const = 0;
  // Whether its first dim counts parameters of one kind, as of experts, each of the other dims.
  virtual bool is_stack(const std::string& /*parameter*/) const { return false; }

  // From here on the parameter is that part of what it was, in memory of its own: its values where
  // it had memory (parameter_memory.h), else uninitialised. Whoever has the tensor, a tied layer
  // say, has the part. For once for each parameter, before training. Throws ShapeError: a part that
  // is empty or not inside of it, a second one.
  void keep_part(const std::string& parameter, const ParameterPart& part);
  // dim -1 where it is whole.
  ParameterPart part(const std::string& parameter) const;

 private:
  std::map<std::string, ParameterPart> parts_;
};

struct RoledParameter {
  std::string name;  // full, as in named_parameters()
  at::Tensor tensor;
  ParameterRole role;
  ParameterPart part;

  // Of the parameter that tensor is a part of, or is.
  std::vector<std::int64_t> whole_shape() const;
};

// All parameters of the module in registration order, tied ones once under their first name (the
// order and names of FlatParameters). Throws ShapeError, naming the parameter, when its owner is
// not a Layer.
std::vector<RoledParameter> parameters_with_roles(const torch::nn::Module& module);

}  // namespace trireme::nn

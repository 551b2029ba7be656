// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/model_parts.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <span>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

at::Tensor parameter_of(const torch::nn::Module& module, const std::string& name) {
  const auto parameters = module.named_parameters();
  if (const at::Tensor* found = parameters.find(name)) return *found;
  throw_error<ConfigError>("the model has no parameter {}", name);
}

}  // namespace

ModelParts joined(const ModelParts& first, const ModelParts& second, Group* group) {
  ModelParts both = first;
  both.group = group;
  both.partial.insert(both.partial.end(), second.partial.begin(), second.partial.end());
  std::set<std::string> elsewhere(first.counted_elsewhere.begin(), first.counted_elsewhere.end());
  elsewhere.insert(second.counted_elsewhere.begin(), second.counted_elsewhere.end());
  both.counted_elsewhere.assign(elsewhere.begin(), elsewhere.end());
  return both;
}

void sum_partial_gradients(torch::nn::Module& module, const ModelParts& parts) {
  for (const PartialGradients& partial : parts.partial) {
    std::vector<at::Tensor> gradients;
    std::vector<Buffer> buffers;
    for (const std::string& name : partial.parameters) {
      at::Tensor parameter = parameter_of(module, name);
      if (!parameter.grad().defined()) parameter.mutable_grad() = at::zeros_like(parameter);
      gradients.push_back(parameter.grad());
      buffers.push_back(buffer_of_tensor(gradients.back()));
    }
    if (!buffers.empty()) partial.group->all_reduce(buffers);
  }
}

double whole_gradient_norm(const torch::nn::Module& module, const ModelParts& parts) {
  double squares = 0;
  const std::vector<std::string>& elsewhere = parts.counted_elsewhere;
  for (const auto& item : module.named_parameters()) {
    const at::Tensor& gradient = item.value().grad();
    if (!gradient.defined()) continue;
    if (std::find(elsewhere.begin(), elsewhere.end(), item.key()) != elsewhere.end()) continue;
    squares += gradient.to(at::kDouble).square().sum().item<double>();
  }
  if (parts.group != nullptr) parts.group->all_reduce(buffer_of(std::span(&squares, 1)));
  return std::sqrt(squares);
}

}  // namespace trireme

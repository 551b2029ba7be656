// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/parameter_memory.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/nn/module.h>

#include <utility>
#include <vector>

namespace trireme::nn {
namespace {

thread_local bool without_memory = false;

}  // namespace

ParametersWithoutMemory::ParametersWithoutMemory() : before_(std::exchange(without_memory, true)) {}
ParametersWithoutMemory::~ParametersWithoutMemory() { without_memory = before_; }

at::Tensor new_parameter(at::IntArrayRef shape) {
  if (!without_memory) return at::empty(shape);
  at::Tensor one = at::empty({1});
  const std::vector<std::int64_t> strides(shape.size(), 0);
  one.unsafeGetTensorImpl()->set_sizes_and_strides(shape, strides);
  return one;
}

bool has_memory(const at::Tensor& parameter) {
  return parameter.storage().nbytes() >=
         static_cast<std::size_t>(parameter.numel()) * parameter.element_size();
}

void give_memory(torch::nn::Module& module) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : module.parameters()) {
    if (has_memory(parameter)) continue;
    parameter.set_data(at::empty(parameter.sizes(), parameter.options().requires_grad(false)));
  }
}

}  // namespace trireme::nn

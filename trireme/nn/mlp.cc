// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/mlp.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

namespace trireme::nn {

MlpImpl::MlpImpl(const ModelConfig& config) {
  const auto C = config.width, F = config.mlp_width;
  const bool bias = config.is_gpt2();
  if (!config.is_gpt2()) {
    gate_ = register_module("gate", Linear(C, F, LinearOptions{}));
  }
  up_ = register_module("up", Linear(C, F, LinearOptions{.bias = bias}));
  down_ = register_module(
      "down", Linear(F, C, LinearOptions{.bias = bias, .role = ParameterRole::kResidualMatrix}));
}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  const at::Tensor up = up_(x);
  return gate_.is_empty() ? down_(at::gelu(up, "tanh")) : down_(at::silu(gate_(x)) * up);
}

}  // namespace trireme::nn

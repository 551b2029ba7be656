// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/mlp.h"

#include "trireme/ops/activation.h"

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
  return gate_.is_empty() ? down_(ops::gelu(up)) : down_(ops::swiglu(gate_(x), up));
}

}  // namespace trireme::nn

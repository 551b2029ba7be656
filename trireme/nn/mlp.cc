// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/mlp.h"

#include "trireme/base/check.h"

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
  TRIREME_ASSERT(!up_->has_output_hook() && !down_->has_input_hook(),
                 "an MLP is one operation: nothing can happen between its matrices");
  const auto between = [this](const at::Tensor& input) {
    return gate_.is_empty()
               ? ops::gelu_mlp(input, up_->weight(), up_->bias(), down_->weight(),
                               down_->bias_in_product(), hidden_)
               : ops::swiglu_mlp(input, gate_->weight(), up_->weight(), down_->weight(), hidden_);
  };
  if (rows_runner_) return down_->add_bias(rows_runner_(x, between));
  return down_->finish(between(up_->input(x)));
}

}  // namespace trireme::nn

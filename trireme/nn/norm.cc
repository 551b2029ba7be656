// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/norm.h"

#include "trireme/nn/parameter_memory.h"
#include "trireme/ops/norm.h"

namespace trireme::nn {

NormImpl::NormImpl(const ModelConfig& config) : epsilon_(config.norm_epsilon) {
  weight_C_ = register_parameter("weight", new_parameter({config.width}));
  if (config.is_gpt2()) {
    bias_C_ = register_parameter("bias", new_parameter({config.width}));
  }
}

at::Tensor NormImpl::forward(const at::Tensor& x) {
  return bias_C_.defined() ? ops::layer_norm(x, weight_C_, bias_C_, epsilon_)
                           : ops::rms_norm(x, weight_C_, epsilon_);
}

at::Tensor NormImpl::forward(ResidualStream& stream) {
  const ops::AddedNorm added =
      bias_C_.defined()
          ? ops::add_layer_norm(stream.x_BTC, stream.change_BTC, weight_C_, bias_C_, epsilon_)
          : ops::add_rms_norm(stream.x_BTC, stream.change_BTC, weight_C_, epsilon_);
  stream = {added.sum, {}};
  return added.normed;
}

ParameterRole NormImpl::role(const std::string& parameter) const {
  return parameter == "bias" ? ParameterRole::kBias : ParameterRole::kNormWeight;
}

}  // namespace trireme::nn

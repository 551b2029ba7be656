// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Norm: layer norm or RMS norm, as the model's family has it.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include "trireme/nn/model_config.h"
#include "trireme/nn/parameter_role.h"

namespace trireme::nn {

class NormImpl : public Layer {
 public:
  // Parameters "weight" [C] and, with gpt2, "bias" [C], uninitialised f32.
  explicit NormImpl(const ModelConfig& config);

  // x: [..., C] -> the same shape and dtype. Gradient: x and the parameters.
  at::Tensor forward(const at::Tensor& x);

  ParameterRole role(const std::string& parameter) const override;

 private:
  double epsilon_;
  at::Tensor weight_C_;
  at::Tensor bias_C_;  // undefined with RMS norm
};
TORCH_MODULE(Norm);

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Norm: layer norm or RMS norm, as the model's family has it.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include "trireme/nn/layer.h"
#include "trireme/nn/model_config.h"

namespace trireme::nn {

// The residual stream between layers: x, and a change that is not added to it yet (undefined:
// none). The next norm adds it in its own pass over memory.
struct ResidualStream {
  at::Tensor x_BTC;
  at::Tensor change_BTC;
};

class NormImpl : public Layer {
 public:
  // Parameters "weight" [C] and, with gpt2, "bias" [C], as new_parameter() makes them.
  explicit NormImpl(const ModelConfig& config);

  // x: [..., C] -> the same shape and dtype. Gradient: x and the parameters.
  at::Tensor forward(const at::Tensor& x);
  // Adds the stream's change, if it has one, to its x and returns the norm of it. The gradients of
  // the stream have the same bits whether its x was added up before or here.
  at::Tensor forward(ResidualStream& stream);

  ParameterRole role(const std::string& parameter) const override;

 private:
  double epsilon_;
  at::Tensor weight_C_;
  at::Tensor bias_C_;  // undefined with RMS norm
};
TORCH_MODULE(Norm);

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Router and Experts: the two layers of a mixture of experts (mixture.h).
//
// Legend: N tokens, E experts, k choices of a token, M rows of tokens, C width, F an expert's
// width.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include <string>

#include "trireme/nn/layer.h"
#include "trireme/nn/model_config.h"
#include "trireme/ops/grouped_linear.h"

namespace trireme::nn {

// What tokens choose, and how evenly. All of a micro-batch.
struct RouterOutput {
  at::Tensor experts_Nk;  // i64, the highest score first
  at::Tensor weights_Nk;  // f32 (f64 in a model of f64)
  // Means over the tokens, scalars of that dtype. balance: E x the sum over the experts of their
  // share of all choices times their mean score, a token's scores divided by their sum: 1 where
  // all are equal (Fedus et al. 2021, equation 4). z: of the squared log of the sum of the
  // exponentials of the router's outputs (Zoph et al. 2022, equation 5).
  at::Tensor balance_loss;
  at::Tensor z_loss;
};

class RouterImpl : public Layer {
 public:
  // Parameter "weight" [E, C], and with balance bias the buffer "bias" [E], f32 zeros.
  explicit RouterImpl(const ModelConfig& config);

  // x: [N, C]. Scores are computed in f32 whatever the dtype. The bias is added to the scores that
  // the choice is made by, and to nothing else. Gradient: x and weight, through weights and losses;
  // the choice has none.
  RouterOutput forward(const at::Tensor& x_NC);

  const at::Tensor& bias() const { return bias_E_; }  // undefined without

  ParameterRole role(const std::string& parameter) const override;

 private:
  const ExpertsConfig config_;
  at::Tensor weight_EC_;
  at::Tensor bias_E_;
};
TORCH_MODULE(Router);

// MLPs side by side, as nn/mlp.h has one: their matrices stacked.
class ExpertsImpl : public Layer {
 public:
  // Parameters "gate" (llama only) and "up" [E, F, C], "down" [E, C, F]; with gpt2 "up_bias" [E, F]
  // and "down_bias" [E, C].
  explicit ExpertsImpl(const ModelConfig& config);

  // x: [M, C] -> [M, C]. groups: of the experts that are here, from 0. Gradient: all.
  at::Tensor forward(const at::Tensor& x_MC, const ops::RowsByExpert& groups);

  void set_hidden_values(ops::HiddenValues hidden) { hidden_ = hidden; }

  ParameterRole role(const std::string& parameter) const override;
  bool is_stack(const std::string&) const override { return true; }

 private:
  ops::HiddenValues hidden_ = ops::HiddenValues::kKept;
  at::Tensor gate_EFC_;
  at::Tensor up_EFC_, up_bias_EF_;
  at::Tensor down_ECF_, down_bias_EC_;
};
TORCH_MODULE(Experts);

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/experts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include "trireme/nn/parameter_memory.h"
#include "trireme/ops/token_routing.h"

namespace trireme::nn {

RouterImpl::RouterImpl(const ModelConfig& config) : config_(config.experts) {
  weight_EC_ = register_parameter("weight", new_parameter({config_.count, config.width}));
  if (config_.balance == "bias") {
    bias_E_ = register_buffer("bias", at::zeros({config_.count}, at::kFloat));
  }
}

RouterOutput RouterImpl::forward(const at::Tensor& x_NC) {
  // The least sum of scores that weights are divided by, for sigmoids that are all 0.
  constexpr double kLeastSum = 1e-20;
  const at::Tensor logits_NE = ops::router_logits(x_NC, weight_EC_);
  const bool softmax = config_.score == "softmax";
  const at::Tensor scores_NE = softmax ? at::softmax(logits_NE, 1) : at::sigmoid(logits_NE);
  RouterOutput output;
  output.experts_Nk = ops::choose_experts(
      bias_E_.defined() ? scores_NE.detach() + bias_E_.to(scores_NE.scalar_type())
                        : scores_NE.detach(),
      config_.top_k);
  output.weights_Nk = scores_NE.gather(1, output.experts_Nk);
  if (config_.normalize) {
    output.weights_Nk = output.weights_Nk / (output.weights_Nk.sum(1, true) + kLeastSum);
  }
  if (config_.scale != 1.0) output.weights_Nk = output.weights_Nk * config_.scale;

  const at::Tensor chosen_E =
      at::bincount(output.experts_Nk.view({-1}), {}, config_.count).to(scores_NE.scalar_type());
  const at::Tensor shares_NE =
      softmax ? scores_NE : scores_NE / (scores_NE.sum(1, true) + kLeastSum);
  const auto choices = static_cast<double>(output.experts_Nk.numel());
  output.balance_loss = (chosen_E / choices * shares_NE.mean(0)).sum() * config_.count;
  output.z_loss = at::logsumexp(logits_NE, {1}).square().mean();
  return output;
}

ParameterRole RouterImpl::role(const std::string&) const { return ParameterRole::kEmbedding; }

ExpertsImpl::ExpertsImpl(const ModelConfig& config) {
  const auto E = config.experts.count, C = config.width, F = config.experts.width;
  if (!config.is_gpt2()) gate_EFC_ = register_parameter("gate", new_parameter({E, F, C}));
  up_EFC_ = register_parameter("up", new_parameter({E, F, C}));
  if (config.is_gpt2()) up_bias_EF_ = register_parameter("up_bias", new_parameter({E, F}));
  down_ECF_ = register_parameter("down", new_parameter({E, C, F}));
  if (config.is_gpt2()) down_bias_EC_ = register_parameter("down_bias", new_parameter({E, C}));
}

at::Tensor ExpertsImpl::forward(const at::Tensor& x_MC, const ops::RowsByExpert& groups) {
  return gate_EFC_.defined()
             ? ops::grouped_swiglu_mlp(x_MC, gate_EFC_, up_EFC_, down_ECF_, groups, hidden_)
             : ops::grouped_gelu_mlp(x_MC, up_EFC_, up_bias_EF_, down_ECF_, down_bias_EC_, groups,
                                     hidden_);
}

ParameterRole ExpertsImpl::role(const std::string& parameter) const {
  if (parameter.ends_with("_bias")) return ParameterRole::kBias;
  return parameter == "down" ? ParameterRole::kResidualMatrix : ParameterRole::kMatrix;
}

}  // namespace trireme::nn

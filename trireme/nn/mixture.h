// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// MixtureOfExperts: what stands in the place of Mlp in a block with experts (Shazeer et al. 2017).
// Each token goes to its k experts, and the weighted sum of what they make of it, and what the
// shared experts make of it, is the result.
//
//   tokens [N, C] -> router -> rows by expert [M, C] -> exchange -> experts
//          [N, C] <- weighted sum of k <- [M, C] <- exchange back <-
//
// Everything but the experts is a micro-batch's own business: its choices, what it drops, its
// losses. So none of that depends on who computes which micro-batch, nor on where the experts are.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "trireme/nn/experts.h"
#include "trireme/nn/mlp.h"
#include "trireme/nn/model_config.h"
#include "trireme/ops/grouped_linear.h"

namespace trireme::nn {

// Rows where their experts are, and the way back for what becomes of them: from [M', C] of these
// rows to [M, C] of those that were sent. Both ways differentiable.
struct DispatchedRows {
  at::Tensor rows;
  ops::RowsByExpert groups;
  std::function<at::Tensor(const at::Tensor&)> back;
};
// Brings the rows [M, C] of a micro-batch, rows_of_expert of each expert in their order, to them.
using ExpertExchange = std::function<DispatchedRows(
    const at::Tensor& rows_MC, const std::vector<std::int64_t>& rows_of_expert)>;

// What a pass saw of one layer's routing, as tensors, so that it is there whoever computes the
// block, and how often.
struct LayerRouting {
  at::Tensor losses;     // [2]: balance, z (RouterOutput); with a graph, f32 or f64
  at::Tensor chosen_E;   // i64 on the CPU: choices of each expert, dropped ones too
  at::Tensor dropped_E;  // i64 on the CPU: those of them that were dropped
};

struct MixtureOutput {
  at::Tensor y;  // as x
  LayerRouting routing;
};

class MixtureOfExpertsImpl : public torch::nn::Module {
 public:
  // Children router, experts, and shared (an Mlp), where there are shared experts.
  explicit MixtureOfExpertsImpl(const ModelConfig& config);

  // x: [..., C], one micro-batch; y: the same shape. Gradient: all.
  MixtureOutput forward(const at::Tensor& x);

  void set_hidden_values(ops::HiddenValues hidden);
  // Empty until it is called: rows stay where they are.
  void set_exchange(ExpertExchange exchange) { exchange_ = std::move(exchange); }

  RouterImpl& router() { return *router_; }
  ExpertsImpl& experts() { return *experts_; }

 private:
  const ExpertsConfig config_;
  ExpertExchange exchange_;
  Router router_{nullptr};
  Experts experts_{nullptr};
  Mlp shared_{nullptr};
};
TORCH_MODULE(MixtureOfExperts);

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/mixture.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <utility>

#include "trireme/ops/token_routing.h"

namespace trireme::nn {
namespace {

ModelConfig shared_config(const ModelConfig& config) {
  ModelConfig shared = config;
  shared.mlp_width = config.experts.shared * config.experts.width;
  return shared;
}

ops::RowsByExpert groups_of(const std::vector<std::int64_t>& rows_of_expert) {
  ops::RowsByExpert groups;
  for (std::size_t e = 0; e < rows_of_expert.size(); ++e) {
    groups.push_back({static_cast<std::int64_t>(e), rows_of_expert[e]});
  }
  return groups;
}

}  // namespace

MixtureOfExpertsImpl::MixtureOfExpertsImpl(const ModelConfig& config) : config_(config.experts) {
  router_ = register_module("router", Router(config));
  experts_ = register_module("experts", Experts(config));
  if (config_.shared > 0) shared_ = register_module("shared", Mlp(shared_config(config)));
}

MixtureOutput MixtureOfExpertsImpl::forward(const at::Tensor& x) {
  const at::Tensor x_NC = x.reshape({-1, x.size(-1)});
  const RouterOutput routed = router_(x_NC);
  const ops::TokenRoutes routes =
      ops::route_tokens(routed.experts_Nk, config_.count, config_.capacity(x_NC.size(0)));
  const at::Tensor rows_MC = ops::gather_tokens(x_NC, routes);
  at::Tensor made_MC;
  if (exchange_) {
    const DispatchedRows there = exchange_(rows_MC, routes.rows);
    made_MC = there.back(experts_->forward(there.rows, there.groups));
  } else {
    made_MC = experts_->forward(rows_MC, groups_of(routes.rows));
  }
  at::Tensor y_NC = ops::combine_tokens(made_MC, routed.weights_Nk, routes);
  if (!shared_.is_empty()) y_NC = y_NC + shared_(x_NC);
  const at::Tensor chosen = at::tensor(routes.chosen, at::kLong);
  return {y_NC.view(x.sizes()),
          {at::stack({routed.balance_loss, routed.z_loss}), chosen,
           chosen - at::tensor(routes.rows, at::kLong)}};
}

void MixtureOfExpertsImpl::set_hidden_values(ops::HiddenValues hidden) {
  experts_->set_hidden_values(hidden);
  if (!shared_.is_empty()) shared_->set_hidden_values(hidden);
}

}  // namespace trireme::nn

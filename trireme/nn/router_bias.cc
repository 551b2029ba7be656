// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/router_bias.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include <vector>

#include "trireme/base/error.h"

namespace trireme::nn {
namespace {

std::vector<std::int64_t> shape_of_choices(const TransformerImpl& model) {
  return {static_cast<std::int64_t>(model.mixtures().size()), model.config().experts.count};
}

void check(const TransformerImpl& model, const at::Tensor& chosen_LE) {
  const auto shape = shape_of_choices(model);
  if (chosen_LE.sizes() != at::IntArrayRef(shape) || chosen_LE.scalar_type() != at::kLong) {
    throw_error<ShapeError>("choices of a model's experts are i64 [{}]; got {} [{}]",
                            fmt::join(shape, ", "), c10::toString(chosen_LE.scalar_type()),
                            fmt::join(chosen_LE.sizes(), ", "));
  }
}

}  // namespace

bool has_router_bias(const TransformerImpl& model) {
  return model.config().experts.count > 0 && model.config().experts.balance == "bias";
}

at::Tensor no_choices(const TransformerImpl& model) {
  return at::zeros(shape_of_choices(model), at::kLong);
}

void add_choices(const TransformerImpl& model, const at::Tensor& chosen_LE) {
  check(model, chosen_LE);
  for (std::size_t l = 0; l < model.routing().size(); ++l) {
    chosen_LE[static_cast<std::int64_t>(l)].add_(model.routing()[l].chosen_E);
  }
}

void update_router_bias(TransformerImpl& model, const at::Tensor& chosen_LE) {
  check(model, chosen_LE);
  const at::NoGradGuard no_grad;
  std::int64_t layer = 0;
  for (MixtureOfExpertsImpl* mixture : model.mixtures()) {
    const at::Tensor bias_E = mixture->router().bias();
    const at::Tensor chosen_E = chosen_LE[layer++];
    if (!bias_E.defined()) continue;
    // Whole numbers: E x the mean less E x each.
    const at::Tensor missing_E = chosen_E.sum() - chosen_E * chosen_E.numel();
    bias_E.add_(missing_E.sign().to(bias_E.options()), model.config().experts.bias_speed);
  }
}

}  // namespace trireme::nn

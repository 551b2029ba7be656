// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Balance without a loss: the router's bias moves after each step, up for experts that had less
// than their share of the step's tokens, down for those that had more (Wang et al. 2024,
// "Auxiliary-Loss-Free Load Balancing", algorithm 1).
//
//   at::Tensor chosen_LE = nn::no_choices(*model);
//   for (each micro-batch) { model->loss(...).backward();  nn::add_choices(*model, chosen_LE); }
//   group->all_reduce(buffer_of_tensor(chosen_LE));   // of all ranks: counts are the caller's
//   nn::update_router_bias(*model, chosen_LE);
#pragma once

#include <ATen/core/Tensor.h>

#include "trireme/nn/transformer.h"

namespace trireme::nn {

// Whether the model's routers have a bias.
bool has_router_bias(const TransformerImpl& model);

// Zeros, i64 [L, E], of the L layers with experts.
at::Tensor no_choices(const TransformerImpl& model);

// Adds the choices of the last pass (TransformerImpl::routing()), dropped ones too. For once after
// each micro-batch's forward pass.
void add_choices(const TransformerImpl& model, const at::Tensor& chosen_LE);

// bias += bias_speed x sign(mean over the experts of chosen - chosen), in each layer. The same
// counts on all ranks give the same bias. Throws ShapeError for counts of another model.
void update_router_bias(TransformerImpl& model, const at::Tensor& chosen_LE);

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/linear.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trireme/base/error.h"
#include "trireme/ops/onednn.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  auto shape = a.sizes().vec();
  shape.back() = b.size(-1);
  at::Tensor out = at::empty(shape, a.options().requires_grad(false));
  multiply(a, b, bias, out);
  return out;
}

// Rows of the last dim.
at::Tensor rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

struct OnednnLinear : torch::autograd::Function<OnednnLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const c10::optional<at::Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return product(rows(x), weight.t(), bias.value_or(at::Tensor())).view(shape);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], y_grad = rows(gradients[0]);
    at::Tensor x_grad, weight_grad, bias_grad;
    if (context->needs_input_grad(0)) {
      x_grad = product(y_grad, weight, {}).view(x.sizes());
    }
    if (context->needs_input_grad(1)) {
      weight_grad = product(y_grad.t(), rows(x), {});
    }
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) {
      bias_grad = y_grad.sum(0);
    }
    return {x_grad, weight_grad, bias_grad};
  }
};

struct OnednnBatchedProduct : torch::autograd::Function<OnednnBatchedProduct> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& a, const at::Tensor& b) {
    context->save_for_backward({a, b});
    return product(a, b, {});
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &a = saved[0], &b = saved[1], &gradient = gradients[0];
    at::Tensor a_grad, b_grad;
    if (context->needs_input_grad(0)) {
      a_grad = product(gradient, b.transpose(1, 2), {});
    }
    if (context->needs_input_grad(1)) {
      b_grad = product(a.transpose(1, 2), gradient, {});
    }
    return {a_grad, b_grad};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight_NK, const at::Tensor& bias_N) {
  if (x.dim() < 1 || weight_NK.dim() != 2 || x.size(-1) != weight_NK.size(1)) {
    throw_error<ShapeError>("a linear layer of [{}] cannot take [{}]",
                            fmt::join(weight_NK.sizes(), ", "), fmt::join(x.sizes(), ", "));
  }
  if (onednn_multiplies(x) && x.numel() > 0) {
    c10::optional<at::Tensor> bias;
    if (bias_N.defined()) {
      bias = bias_N;
    }
    return OnednnLinear::apply(x, weight_NK, bias);
  }
  return at::linear(x, weight_NK, bias_N);
}

at::Tensor batched_product(const at::Tensor& a_BMK, const at::Tensor& b_BKN) {
  return onednn_multiplies(a_BMK) ? OnednnBatchedProduct::apply(a_BMK, b_BKN)
                                  : at::bmm(a_BMK, b_BKN);
}

}  // namespace trireme::ops

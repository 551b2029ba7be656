// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/rsqrt.h>
#include <torch/csrc/autograd/custom_function.h>

#include <tuple>

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor wide(const at::Tensor& x) { return x.to(at::kFloat); }
at::Tensor narrow(const at::Tensor& x) { return x.to(at::kBFloat16); }

// LibTorch's bf16 kernel adds the parameters' gradients in bf16, where a sum of ones ends at 256,
// and is slower than f32's with the casts.
struct Bf16LayerNorm : torch::autograd::Function<Bf16LayerNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias, double epsilon) {
    const auto [y, mean, inverse_deviation] =
        at::native_layer_norm(wide(x), weight.sizes(), wide(weight), wide(bias), epsilon);
    context->save_for_backward({x, weight, bias, mean, inverse_deviation});
    return narrow(y);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto [x_grad, weight_grad, bias_grad] = at::native_layer_norm_backward(
        wide(gradients[0]), wide(saved[0]), saved[1].sizes(), saved[3], saved[4], wide(saved[1]),
        wide(saved[2]), {true, true, true});
    return {narrow(x_grad), narrow(weight_grad), narrow(bias_grad), at::Tensor()};
  }
};

}  // namespace

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight_C, const at::Tensor& bias_C,
                      double epsilon) {
  return x.scalar_type() == at::kBFloat16
             ? Bf16LayerNorm::apply(x, weight_C, bias_C, epsilon)
             : at::layer_norm(x, weight_C.sizes(), weight_C, bias_C, epsilon);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight_C, double epsilon) {
  const at::Tensor x_wide = x.scalar_type() == at::kBFloat16 ? wide(x) : x;
  const at::Tensor inverse_rms = at::rsqrt(x_wide.square().mean(-1, /*keepdim=*/true) + epsilon);
  return (x_wide * inverse_rms).to(x.scalar_type()) * weight_C;
}

}  // namespace trireme::ops

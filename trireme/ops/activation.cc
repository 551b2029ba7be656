// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/silu.h>
#include <torch/csrc/autograd/custom_function.h>

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// LibTorch 1.13's own bf16 kernels take two to three times as long as f32's with both casts.
struct Bf16Gelu : torch::autograd::Function<Bf16Gelu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return at::gelu(x.to(at::kFloat), "tanh").to(at::kBFloat16);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor x = context->get_saved_variables()[0];
    return {
        at::gelu_backward(gradients[0].to(at::kFloat), x.to(at::kFloat), "tanh").to(at::kBFloat16)};
  }
};

}  // namespace

at::Tensor gelu(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? Bf16Gelu::apply(x) : at::gelu(x, "tanh");
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

}  // namespace trireme::ops

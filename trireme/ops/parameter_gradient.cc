// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/parameter_gradient.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "trireme/base/error.h"
#include "trireme/ops/kernels/matrix_product.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

thread_local bool direct_gradients = false;

}  // namespace

DirectGradients::DirectGradients() : before_(direct_gradients) { direct_gradients = true; }
DirectGradients::~DirectGradients() { direct_gradients = before_; }

namespace detail {

void check_first_derivative() {
  if (at::GradMode::is_enabled()) {
    throw_error<Error>(
        "the operations of trireme have first derivatives only: run this backward pass without "
        "create_graph, or the model in f64, where LibTorch's operations compute");
  }
}

at::Tensor direct_gradient(const at::Tensor& parameter) {
  // With a graph of the backward pass itself, gradients are values like others.
  if (!direct_gradients || at::GradMode::is_enabled() || !parameter.is_leaf() ||
      !parameter.requires_grad()) {
    return {};
  }
  const at::Tensor& gradient = parameter.grad();
  const bool fits = gradient.defined() && gradient.scalar_type() == at::kFloat &&
                    gradient.is_cpu() && gradient.is_contiguous() &&
                    gradient.sizes() == parameter.sizes();
  return fits ? gradient : at::Tensor();
}

GradientSum::GradientSum(const at::Tensor& parameter)
    : dtype_(parameter.scalar_type()), sum_(direct_gradient(parameter)) {
  direct_ = sum_.defined();
  if (!direct_) sum_ = at::zeros(parameter.sizes(), parameter.options().dtype(at::kFloat));
}

at::Tensor GradientSum::finish() { return direct_ ? at::Tensor() : sum_.to(dtype_); }

at::Tensor matrix_gradient(const at::Tensor& parameter, const MatrixView& left,
                           const MatrixView& right) {
  at::Tensor out = direct_gradient(parameter);
  const bool direct = out.defined();
  if (!direct) out = at::empty(parameter.sizes(), parameter.options());
  matrix_product(left, right,
                 {.kind = direct ? Epilogue::Kind::kAdd : Epilogue::Kind::kStore,
                  .out = out.data_ptr(),
                  .element = element_of(out),
                  .stride = right.columns});
  return direct ? at::Tensor() : out;
}

at::Tensor bias_gradient(const at::Tensor& parameter, const at::Tensor& gradient_rows) {
  GradientSum sum(parameter);
  add_column_sums(view_of(gradient_rows), sum.data());
  return sum.finish();
}

}  // namespace detail
}  // namespace trireme::ops

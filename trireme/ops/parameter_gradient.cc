// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/parameter_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <memory>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/ops/deferred_gradients.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

// What LibTorch takes along to the threads of a backward pass: on a CUDA device that is not the
// caller's. A kind of our own, beyond those that LibTorch names.
constexpr auto kDirectGradients = static_cast<c10::DebugInfoKind>(0xD6);

struct Mark final : c10::DebugInfoBase {
  explicit Mark(DirectGradients::Rules rules_in) : rules(std::move(rules_in)) {}
  const DirectGradients::Rules rules;
};

// Null where the parameter's gradient takes the usual way.
const DirectGradients::Rules* rules_for(const at::Tensor& parameter) {
  const auto* mark = static_cast<const Mark*>(c10::ThreadLocalDebugInfo::get(kDirectGradients));
  // With a graph of the backward pass itself, gradients are values like others.
  if (mark == nullptr || at::GradMode::is_enabled() || !parameter.is_leaf() ||
      !parameter.requires_grad()) {
    return nullptr;
  }
  return &mark->rules;
}

}  // namespace

DirectGradients::DirectGradients() : DirectGradients(Rules()) {}
DirectGradients::DirectGradients(Rules rules)
    : guard_(kDirectGradients, std::make_shared<Mark>(std::move(rules))) {}
DirectGradients::~DirectGradients() = default;

namespace detail {

void check_first_derivative() {
  if (at::GradMode::is_enabled()) {
    throw_error<Error>(
        "the operations of trireme have first derivatives only: run this backward pass without "
        "create_graph, or the model in f64, where LibTorch's operations compute");
  }
}

at::Tensor direct_gradient(const at::Tensor& parameter) {
  const DirectGradients::Rules* rules = rules_for(parameter);
  if (rules == nullptr) return {};
  if (!parameter.grad().defined() && rules->home) rules->home(parameter);
  const at::Tensor& gradient = parameter.grad();
  const bool fits = gradient.defined() && gradient.scalar_type() == at::kFloat &&
                    has_kernels(gradient, parameter) && gradient.is_contiguous() &&
                    gradient.sizes() == parameter.sizes();
  if (!fits) return {};
  if (rules->before_addition) rules->before_addition(parameter);
  return gradient;
}

const DirectGradients::RowHome* row_home(const at::Tensor& parameter) {
  const DirectGradients::Rules* rules = rules_for(parameter);
  return rules != nullptr && rules->row_home ? rules->row_home(parameter) : nullptr;
}

GradientSum::GradientSum(const at::Tensor& parameter)
    : parameter_(parameter), recording_(recording_of(parameter)) {
  if (recording_ == nullptr) sum_ = direct_gradient(parameter);
  direct_ = sum_.defined();
  if (!direct_) sum_ = at::zeros(parameter.sizes(), parameter.options().dtype(at::kFloat));
}

at::Tensor GradientSum::finish() {
  if (direct_) return {};
  if (recording_ == nullptr) return sum_.to(parameter_.scalar_type());
  recording_->record(parameter_, {sum_}, [parameter = parameter_, sum = sum_] {
    at::Tensor direct = direct_gradient(parameter);
    if (!direct.defined()) return sum.to(parameter.scalar_type());
    direct.add_(sum);
    return at::Tensor();
  });
  return {};
}

at::Tensor matrix_gradient(const at::Tensor& parameter, const at::Tensor& y_grad,
                           const at::Tensor& x) {
  return now_or_later(parameter, {y_grad, x},
                      [parameter, y_grad, x] { return matrix_gradient_now(parameter, y_grad, x); });
}

at::Tensor matrix_gradient_now(const at::Tensor& parameter, const at::Tensor& y_grad,
                               const at::Tensor& x) {
  at::Tensor out = direct_gradient(parameter);
  const bool direct = out.defined();
  if (!direct) out = at::empty(parameter.sizes(), parameter.options());
  matrix_product(parameter.device(), view_of(y_grad).transposed(), view_of(x),
                 {.kind = direct ? Epilogue::Kind::kAdd : Epilogue::Kind::kStore,
                  .out = out.data_ptr(),
                  .element = element_of(out),
                  .stride = x.size(1)});
  return direct ? at::Tensor() : out;
}

at::Tensor bias_gradient(const at::Tensor& parameter, const at::Tensor& gradient_rows) {
  return now_or_later(parameter, {gradient_rows}, [parameter, gradient_rows] {
    GradientSum sum(parameter);
    add_column_sums(parameter.device(), view_of(gradient_rows), sum.data());
    return sum.finish();
  });
}

}  // namespace detail
}  // namespace trireme::ops

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
#include "trireme/ops/thread_marks.h"

namespace trireme::ops {
namespace {

struct Mark final : c10::DebugInfoBase {
  explicit Mark(DirectGradients::Rules rules_in)
      : rules(std::move(rules_in)),
        outer(static_cast<const Mark*>(
            c10::ThreadLocalDebugInfo::get(detail::kDirectGradientsMark))) {}
  const DirectGradients::Rules rules;
  const Mark* const outer;  // which lives longer
};

// Null where the parameter's gradient takes the usual way.
const Mark* innermost_mark(const at::Tensor& parameter) {
  const auto* mark =
      static_cast<const Mark*>(c10::ThreadLocalDebugInfo::get(detail::kDirectGradientsMark));
  // With a graph of the backward pass itself, gradients are values like others.
  if (mark == nullptr || at::GradMode::is_enabled() || !parameter.is_leaf() ||
      !parameter.requires_grad()) {
    return nullptr;
  }
  return mark;
}

}  // namespace

DirectGradients::DirectGradients() : DirectGradients(Rules()) {}
DirectGradients::DirectGradients(Rules rules)
    : guard_(detail::kDirectGradientsMark, std::make_shared<Mark>(std::move(rules))) {}
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
  const Mark* innermost = innermost_mark(parameter);
  if (innermost == nullptr) return {};
  for (const Mark* mark = innermost; mark != nullptr; mark = mark->outer) {
    if (!parameter.grad().defined() && mark->rules.home) mark->rules.home(parameter);
  }
  const at::Tensor& gradient = parameter.grad();
  const bool fits = gradient.defined() && gradient.scalar_type() == at::kFloat &&
                    has_kernels(gradient, parameter) && gradient.is_contiguous() &&
                    gradient.sizes() == parameter.sizes();
  if (!fits) return {};
  for (const Mark* mark = innermost; mark != nullptr; mark = mark->outer) {
    if (mark->rules.before_addition) mark->rules.before_addition(parameter);
  }
  return gradient;
}

const DirectGradients::RowHome* row_home(const at::Tensor& parameter) {
  for (const Mark* mark = innermost_mark(parameter); mark != nullptr; mark = mark->outer) {
    if (!mark->rules.row_home) continue;
    if (const auto* home = mark->rules.row_home(parameter)) return home;
  }
  return nullptr;
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

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/taken_gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <memory>
#include <utility>

#include "trireme/ops/deferred_gradients.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/thread_marks.h"

namespace trireme::ops {
namespace {

struct Mark final : c10::DebugInfoBase {
  explicit Mark(TakenGradients::Takers takers_in) : takers(std::move(takers_in)) {}
  const TakenGradients::Takers takers;
};

const TakenGradients::Takers* takers() {
  const auto* mark =
      static_cast<const Mark*>(c10::ThreadLocalDebugInfo::get(detail::kTakenGradientsMark));
  return mark == nullptr ? nullptr : &mark->takers;
}

}  // namespace

TakenGradients::TakenGradients(Takers takers)
    : guard_(detail::kTakenGradientsMark, std::make_shared<Mark>(std::move(takers))) {}
TakenGradients::~TakenGradients() = default;

void add_taken_matrix(const at::Tensor& weight, const at::Tensor& gradient, double factor) {
  const at::NoGradGuard no_grad;
  const at::Tensor direct = detail::direct_gradient(weight);
  if (direct.defined()) {
    at::Tensor(direct).add_(gradient, factor);
  } else {
    detail::accumulate(weight, (gradient * factor).to(weight.scalar_type()));
  }
}

void add_taken_rows(const at::Tensor& weight, const at::Tensor& indices,
                    const at::Tensor& gradients) {
  const at::NoGradGuard no_grad;
  const at::Tensor rest = detail::sum_rows(weight, gradients, indices);
  if (rest.defined()) detail::accumulate(weight, rest);
}

namespace detail {

bool takes_loss_matrix() {
  const TakenGradients::Takers* to = takers();
  return to != nullptr && to->loss_matrix;
}

void take_loss_matrix(const at::Tensor& gradient) { takers()->loss_matrix(gradient); }

bool take_rows(const at::Tensor& weight, const at::Tensor& indices, const at::Tensor& gradients) {
  const TakenGradients::Takers* to = takers();
  return to != nullptr && to->rows && to->rows(weight, indices, gradients);
}

}  // namespace detail
}  // namespace trireme::ops

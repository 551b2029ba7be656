// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_assert_async.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/row_grouping.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor summed(const at::Tensor& parameter, const at::Tensor& gradient,
                  const RowGrouping& groups) {
  detail::GradientSum sum(parameter);
  add_row_groups(parameter.device(), {.element = element_of(gradient),
                                      .from = gradient.data_ptr(),
                                      .width = gradient.size(-1),
                                      .groups = groups.targets.numel(),
                                      .order = groups.order.data_ptr<std::int64_t>(),
                                      .starts = groups.starts.data_ptr<std::int64_t>(),
                                      .targets = groups.targets.data_ptr<std::int64_t>(),
                                      .to = sum.data()});
  return sum.finish();
}

struct Embedding : torch::autograd::Function<Embedding> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight,
                            const at::Tensor& given, const c10::optional<at::Tensor>& positions) {
    const TimedPart part("embedding forward");
    const at::Tensor indices = given.contiguous();
    context->save_for_backward({weight, indices, positions.value_or(at::Tensor())});
    auto shape = indices.sizes().vec();
    const std::int64_t tokens = indices.size(-1);
    shape.push_back(weight.size(1));
    at::Tensor out = at::empty(shape, weight.options().requires_grad(false));
    look_up_rows(weight.device(), {.element = element_of(weight),
                                   .table = weight.data_ptr(),
                                   .positions = positions ? positions->data_ptr() : nullptr,
                                   .indices = indices.data_ptr<std::int64_t>(),
                                   .out = out.data_ptr(),
                                   .rows = indices.numel(),
                                   .tokens = tokens,
                                   .width = weight.size(1)});
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("embedding backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &weight = saved[0], &indices = saved[1], &positions = saved[2];
    const at::Tensor gradient = gradients[0].contiguous();
    at::Tensor weight_grad, positions_grad;
    if (context->needs_input_grad(0)) {
      weight_grad = summed(weight, gradient, group_by_index(indices, weight.size(0)));
    }
    if (positions.defined() && context->needs_input_grad(2)) {
      positions_grad = summed(positions, gradient, group_by_position(indices));
    }
    return {weight_grad, at::Tensor(), positions_grad};
  }
};

void check(const at::Tensor& weight, const at::Tensor& indices, const at::Tensor& positions) {
  if (weight.dim() != 2 || indices.scalar_type() != at::kLong || indices.dim() < 1) {
    throw_error<ShapeError>("an embedding needs a matrix and i64 indices; got [{}] and {} [{}]",
                            fmt::join(weight.sizes(), ", "), c10::toString(indices.scalar_type()),
                            fmt::join(indices.sizes(), ", "));
  }
  if (positions.defined() &&
      (positions.sizes() != at::IntArrayRef({indices.size(-1), weight.size(1)}) ||
       positions.scalar_type() != weight.scalar_type())) {
    throw_error<ShapeError>(
        "positions of {} tokens of {} [{}] must be [{}, {}]; got {} [{}]", indices.size(-1),
        c10::toString(weight.scalar_type()), fmt::join(weight.sizes(), ", "), indices.size(-1),
        weight.size(1), c10::toString(positions.scalar_type()), fmt::join(positions.sizes(), ", "));
  }
}

void check_range(const at::Tensor& indices, std::int64_t rows) {
  if (!indices.is_cpu()) {
    return at::_assert_async(indices.ge(0).logical_and(indices.lt(rows)).all());
  }
  const at::Tensor contiguous = indices.contiguous();
  const auto* data = contiguous.data_ptr<std::int64_t>();
  const auto* bad = std::find_if(data, data + contiguous.numel(),
                                 [&](std::int64_t index) { return index < 0 || index >= rows; });
  TORCH_CHECK_INDEX(bad == data + contiguous.numel(), "index ", *bad, " at position ", bad - data,
                    " is outside of an embedding of ", rows, " rows");
}

}  // namespace

at::Tensor embedding(const at::Tensor& weight_VC, const at::Tensor& indices,
                     const at::Tensor& positions_TC) {
  check(weight_VC, indices, positions_TC);
  if (!has_kernels(weight_VC, indices, positions_TC)) {
    const at::Tensor rows = at::embedding(weight_VC, indices);
    return positions_TC.defined() ? rows + positions_TC : rows;
  }
  check_range(indices, weight_VC.size(0));
  return Embedding::apply(
      weight_VC.contiguous(), indices,
      positions_TC.defined() ? c10::optional<at::Tensor>(positions_TC.contiguous()) : c10::nullopt);
}

}  // namespace trireme::ops

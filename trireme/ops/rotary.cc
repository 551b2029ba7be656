// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "trireme/base/error.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor turned(const at::Tensor& given, const at::Tensor& cos, const at::Tensor& sin,
                  bool inverse) {
  const at::Tensor x = given.contiguous();
  at::Tensor out = at::empty_like(x);
  rotate_heads(x.device(), {.element = element_of(x),
                            .x = x.data_ptr(),
                            .out = out.data_ptr(),
                            .cosines = cos.data_ptr<float>(),
                            .sines = sin.data_ptr<float>(),
                            .rows = x.size(0) * x.size(1),
                            .tokens = x.size(1),
                            .heads = x.size(2),
                            .head_width = x.size(3),
                            .inverse = inverse});
  return out;
}

struct Rotate : torch::autograd::Function<Rotate> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    const TimedPart part("rotary forward");
    context->save_for_backward({cos, sin});
    return turned(x, cos, sin, false);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("rotary backward");
    const auto saved = context->get_saved_variables();
    return {turned(gradients[0], saved[0], saved[1], true), at::Tensor(), at::Tensor()};
  }
};

void check(const at::Tensor& x, const RotaryTable& table) {
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto fits = [&](const at::Tensor& t) {
    return t.defined() && t.scalar_type() == dtype && t.is_contiguous() &&
           t.sizes() == at::IntArrayRef({x.size(1), 1, x.size(3) / 2});
  };
  if (x.dim() != 4 || x.size(3) % 2 != 0 || !fits(table.cos) || !fits(table.sin)) {
    throw_error<ShapeError>(
        "a rotation of [B, T, H, D], D even, needs a table [T, 1, D / 2] of {}; got [{}] and {}",
        c10::toString(dtype), fmt::join(x.sizes(), ", "),
        table.cos.defined() ? fmt::format("{} [{}]", c10::toString(table.cos.scalar_type()),
                                          fmt::join(table.cos.sizes(), ", "))
                            : "none");
  }
}

}  // namespace

RotaryTable rotary_table(const at::Tensor& positions_T, std::int64_t head_width, double theta,
                         const at::TensorOptions& options) {
  if (head_width % 2 != 0) {
    throw_error<ShapeError>("heads of width {} cannot be rotated: the width must be even",
                            head_width);
  }
  if (positions_T.dim() != 1 || positions_T.scalar_type() != at::kLong) {
    throw_error<ShapeError>("positions of a rotation must be i64 [T]; got {} [{}]",
                            c10::toString(positions_T.scalar_type()),
                            fmt::join(positions_T.sizes(), ", "));
  }
  const auto wide = options.dtype(at::kDouble).requires_grad(false);
  const auto result =
      c10::typeMetaToScalarType(options.dtype()) == at::kDouble ? at::kDouble : at::kFloat;
  const auto half = head_width / 2;
  const auto frequencies =
      (at::arange(half, wide) * (-std::log(theta) / static_cast<double>(half))).exp();
  const auto angles = (positions_T.to(wide).unsqueeze(1) * frequencies).unsqueeze(1);
  return {angles.cos().to(result), angles.sin().to(result)};
}

RotaryTable rotary_table(std::int64_t position, std::int64_t tokens, std::int64_t head_width,
                         double theta, const at::TensorOptions& options) {
  const auto indices = options.dtype(at::kLong).requires_grad(false);
  return rotary_table(at::arange(position, position + tokens, indices), head_width, theta, options);
}

at::Tensor rotate(const at::Tensor& x_BTHD, const RotaryTable& table) {
  check(x_BTHD, table);
  if (has_kernels(x_BTHD, table.cos, table.sin) && x_BTHD.numel() > 0) {
    return Rotate::apply(x_BTHD, table.cos, table.sin);
  }
  const auto halves = x_BTHD.chunk(2, -1);
  const auto rotated = at::cat({halves[0] * table.cos - halves[1] * table.sin,
                                halves[1] * table.cos + halves[0] * table.sin},
                               -1);
  return rotated.to(x_BTHD.scalar_type());
}

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include <cmath>

namespace trireme::ops {

RotaryTable rotary_table(std::int64_t position, std::int64_t tokens, std::int64_t head_width,
                         double theta, const at::TensorOptions& options) {
  const auto wide = options.dtype(at::kDouble).requires_grad(false);
  const auto result =
      c10::typeMetaToScalarType(options.dtype()) == at::kDouble ? at::kDouble : at::kFloat;
  const auto half = head_width / 2;
  const auto frequencies =
      (at::arange(half, wide) * (-std::log(theta) / static_cast<double>(half))).exp();
  const auto positions = at::arange(position, position + tokens, wide);
  const auto angles = (positions.unsqueeze(1) * frequencies).unsqueeze(1);
  return {angles.cos().to(result), angles.sin().to(result)};
}

at::Tensor rotate(const at::Tensor& x_BTHD, const RotaryTable& table) {
  const auto halves = x_BTHD.chunk(2, -1);
  const auto rotated = at::cat({halves[0] * table.cos - halves[1] * table.sin,
                                halves[1] * table.cos + halves[0] * table.sin},
                               -1);
  return rotated.to(x_BTHD.scalar_type());
}

}  // namespace trireme::ops

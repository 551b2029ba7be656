// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rotary position embedding (Su et al. 2021), in the rotate-half layout of the published Llama
// weights: element d of a head pairs with element d + D / 2.
//
//   const auto table = ops::rotary_table(position, T, D, theta, q.options());
//   q_BTHD = ops::rotate(q_BTHD, table);
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trireme::ops {

// Cosines and sines, [T, 1, D / 2] each, f32 (f64 with f64 options), of the angles position x
// theta^(-2 d / D). Undefined tensors mean: no rotation.
struct RotaryTable {
  at::Tensor cos;
  at::Tensor sin;
};

// For tokens position .. position + tokens - 1; head_width even. The angles are computed in f64: in
// f32 those of far positions would be off by 1e-3 and more. Throws ShapeError.
RotaryTable rotary_table(std::int64_t position, std::int64_t tokens, std::int64_t head_width,
                         double theta, const at::TensorOptions& options);
// For tokens at the given positions, i64 [T].
RotaryTable rotary_table(const at::Tensor& positions_T, std::int64_t head_width, double theta,
                         const at::TensorOptions& options);

// x_BTHD: [B, T, H, D]; a table of T tokens, f64 for x of f64. Returns the same shape and dtype,
// computed in f32 at least. Gradient: x. Throws ShapeError.
at::Tensor rotate(const at::Tensor& x_BTHD, const RotaryTable& table);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rows of a matrix by index, with the learned positions added in the same pass.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// weight[indices], plus positions[t] for the indices [..., t] where positions are given. weight:
// [V, C], floating; indices: i64, [..., T], each in [0, V); positions: [T, C] of weight's dtype, or
// undefined. Returns [..., T, C]. Gradient: weight, positions; on the CPU the gradients of a row
// are added in the order of the indices, in f32 at least, whatever the threads, and rounded once.
// Throws c10::IndexError, ShapeError.
at::Tensor embedding(const at::Tensor& weight_VC, const at::Tensor& indices,
                     const at::Tensor& positions_TC = {});

}  // namespace trireme::ops

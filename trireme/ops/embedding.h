// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rows of a matrix by index, with the learned positions added in the same pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "trireme/ops/kernels/row_kernels.h"

namespace trireme::ops {

// weight[indices], plus positions[t] for the indices [..., t] where positions are given. weight:
// [V, C], floating; indices: i64, [..., T], each in [0, V), or kNoRow, which gives zeros;
// positions: [T, C] of weight's dtype, or undefined. Returns [..., T, C]. Gradient: weight,
// positions; the kernels add the gradients of a row in the order of the indices, in f32 at least,
// whatever the threads, and round once. Throws c10::IndexError, ShapeError; on a CUDA device, where
// nothing waits, a wrong index is an assertion of the device instead, after which the process can
// use it no more.
at::Tensor embedding(const at::Tensor& weight_VC, const at::Tensor& indices,
                     const at::Tensor& positions_TC = {});

// What a backward pass adds to the gradient of a matrix.
struct GraphUses {
  // The indices of each embedding() of it, those of rows: i64, contiguous.
  std::vector<at::Tensor> lookups;
  std::int64_t others = 0;  // other operations that use it
};

// Of the pass from root, as its graph has it: a walk over all its nodes. What another graph holds,
// as that of an ops::checkpoint(), is not seen. weight: a leaf that requires a gradient.
GraphUses uses_in_graph(const at::Tensor& root, const at::Tensor& weight);

}  // namespace trireme::ops

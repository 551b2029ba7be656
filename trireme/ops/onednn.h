// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Matrix products by oneDNN, on LibTorch's tensors. Knows oneDNN's versions (2.6 to 3.x).
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// out = a b (+ bias for every row), for one matrix or a batch of them. a: [M, K] or [B, M, K], b:
// [K, N] or [B, K, N], bias: [N] or undefined, out: [M, N] or [B, M, N] contiguous, all of one
// dtype that has_kernels() takes, no dim 0. Transposed views of a and b are read in place. Sums in
// f32. No gradient. On this thread's OpenMP pool. Throws ShapeError, and dnnl::error when this
// processor cannot multiply the dtype.
void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias,
              const at::Tensor& out);

}  // namespace trireme::ops

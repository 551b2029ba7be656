// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Differentiable matrix products, the place where a training step spends its time. In f32 and bf16
// on the CPU they run on oneDNN, forward and backward: LibTorch 1.13's f32 goes to OpenBLAS, which
// reaches half the rate or less.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// x weight^T (+ bias). x: [..., K]; weight: [N, K]; bias: [N] or undefined; one floating dtype.
// Returns [..., N]. Gradient: x, weight, bias. Throws ShapeError.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight_NK, const at::Tensor& bias_N);

// a b for each of B pairs of matrices, transposed views welcome. a: [B, M, K], b: [B, K, N]; one
// floating dtype, no dim 0. Returns [B, M, N] contiguous. Gradient: both. Throws ShapeError.
at::Tensor batched_product(const at::Tensor& a_BMK, const at::Tensor& b_BKN);

}  // namespace trireme::ops

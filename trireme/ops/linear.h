// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Linear map, the place where a training step spends its time.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// x weight^T (+ bias). x: [..., K]; weight: [N, K]; bias: [N] or undefined; one floating dtype.
// Returns [..., N]. Gradient: x, weight, bias. In f32 and bf16 on the CPU all three products run on
// oneDNN: LibTorch 1.13's f32 goes to OpenBLAS, at half the rate. Throws ShapeError.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight_NK, const at::Tensor& bias_N);

}  // namespace trireme::ops

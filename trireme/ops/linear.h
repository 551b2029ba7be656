// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Linear layers and the two-layer networks made of them, the place where a training step spends its
// time. In f32 and bf16 on the CPU they run on ops' own matrix products (kernels/matrix_product.h),
// forward and backward, with bias and activation in the same pass; gradients of parameters are sums
// in f32 (parameter_gradient.h). On a CUDA device the products are cuBLAS's, straight into those
// sums, with bias and activation in one pass after them (cuda/matrix_product.h). Other dtypes and
// devices go through LibTorch.
//
// Cost: 2 N K M floating-point operations for N rows forward, twice that backward. Blocks on the
// CPU, where the work runs on ops' one pool. Any thread.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// x weight^T (+ bias). x: [..., K]; weight: [M, K]; bias: [M] or undefined; one floating dtype.
// Returns [..., M]. Gradient: x, weight, bias. Throws ShapeError.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight_MK, const at::Tensor& bias_M);

// What becomes of an MLP's hidden values, [..., F], between its forward and its backward pass. No
// bit depends on it.
enum class HiddenValues {
  kKept,
  kComputedAgain,  // from what stands before the nonlinearity: one elementwise pass
};

// gelu(x up^T + up_bias) down^T + down_bias (Hendrycks and Gimpel 2016, the tanh form). x: [...,
// C]; up: [F, C]; down: [C', F]; biases may be undefined. Returns [..., C']. Gradient: all. Keeps x
// and two tensors [..., F], one where hidden values are computed again. Throws ShapeError.
at::Tensor gelu_mlp(const at::Tensor& x, const at::Tensor& up_FC, const at::Tensor& up_bias_F,
                    const at::Tensor& down_CF, const at::Tensor& down_bias_C,
                    HiddenValues hidden = HiddenValues::kKept);

// (silu(x gate^T) (x up^T)) down^T, SwiGLU (Shazeer 2020). Shapes as above. Gradient: all. Keeps x
// and three tensors [..., F], or two. Throws ShapeError.
at::Tensor swiglu_mlp(const at::Tensor& x, const at::Tensor& gate_FC, const at::Tensor& up_FC,
                      const at::Tensor& down_CF, HiddenValues hidden = HiddenValues::kKept);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The activations of ops/kernels/simd-inl.h on a device. Every operation is named (a product that
// no sum may swallow is __fmul_rn), so that all kernels get the same bits from them.
#pragma once

#include "trireme/ops/cuda/device-inl.cuh"

namespace trireme::ops::cuda::detail {

// 1 / (1 + e^-x). The bound keeps the divisor below 2^126, beyond which __fdividef gives 0.
__device__ inline float sigmoid(float x) {
  return __fdividef(1.0F, __fadd_rn(1.0F, expf(fminf(-x, 87.0F))));
}

// GELU in its tanh form, x / 2 (1 + tanh(z)) = x sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3).
inline constexpr float kGeluLinear = 2 * 0.79788456080286536F;
inline constexpr float kGeluCubic = 0.044715F * kGeluLinear;

__device__ inline float gelu_gate(float x) {
  return sigmoid(__fmul_rn(x, fmaf(kGeluCubic, __fmul_rn(x, x), kGeluLinear)));
}
__device__ inline float gelu(float x) { return __fmul_rn(x, gelu_gate(x)); }
// s + x s (1 - s) d(2 z)/dx.
__device__ inline float gelu_derivative(float x) {
  const float s = gelu_gate(x);
  const float slope = fmaf(3 * kGeluCubic, __fmul_rn(x, x), kGeluLinear);
  return fmaf(__fmul_rn(__fmul_rn(x, s), 1.0F - s), slope, s);
}

__device__ inline float silu(float x) { return __fmul_rn(x, sigmoid(x)); }
// s (1 + x (1 - s)).
__device__ inline float silu_derivative(float x) {
  const float s = sigmoid(x);
  return __fmul_rn(s, fmaf(x, 1.0F - s, 1.0F));
}

}  // namespace trireme::ops::cuda::detail

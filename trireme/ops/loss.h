// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The loss of a language model, from hidden states: the logits exist for kLossRows rows at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trireme::ops {

// A target that counts for nothing.
inline constexpr std::int64_t kIgnoredTarget = -100;

// Mean of -log softmax(x weight^T)[target] over the rows whose target is not kIgnoredTarget, in
// nats; 0 when there are none. x: [N, C]; weight: [V, C] of x's dtype; targets_N: i64 [N], each in
// [0, V). Returns a scalar, f32 (f64 for f64). Gradient: x, weight. Where there are kernels (f32
// and bf16, on the CPU or a CUDA device) logits and softmax are f32, and the gradients are computed
// in the forward pass, while a block's logits are at hand, where they will be needed: x's in its
// dtype, weight's in f32 [V, C], kept until backward. Else LibTorch's operations run, which hold N
// V logits. Cost: 6 N V C floating-point operations, 2 N V C without gradient. Throws ShapeError,
// c10::IndexError; on a CUDA device, where nothing waits, a wrong target is an assertion of the
// device instead, after which the process can use it no more.
at::Tensor linear_cross_entropy(const at::Tensor& x_NC, const at::Tensor& weight_VC,
                                const at::Tensor& targets_N);

inline constexpr std::int64_t kLossRows = 256;

}  // namespace trireme::ops

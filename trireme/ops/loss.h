// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The loss of a language model, from hidden states: the logits exist for kLossRows rows at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

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

// Rows of a weight [V, C] that is cut between several who compute the same loss, each with all of
// x.
struct VocabularyPart {
  std::int64_t first = 0;  // of the rows here
  std::int64_t size = 0;   // V
  // What each has found out about R rows of x, f64 [2, R], becomes that of all, [parts, 2, R], in
  // the order of the parts. Blocking.
  std::function<at::Tensor(const at::Tensor&)> gather;
};

// The same loss from weight_VC [V', C], V' of the rows of V. No logit leaves its part: 16 bytes go
// to the others for each row of x, kLossRows rows at a time. All get the same bits. Gradient:
// weight; x's is this part's share, whose sum over the parts is the gradient. Everywhere the
// gradients are computed in the forward pass. Throws also what gather does.
at::Tensor linear_cross_entropy(const at::Tensor& x_NC, const at::Tensor& weight_VC,
                                const at::Tensor& targets_N, const VocabularyPart& part);

}  // namespace trireme::ops

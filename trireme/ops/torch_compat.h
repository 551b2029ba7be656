// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The one header that knows LibTorch's versions (1.13 to 2.14). Everything else is written once.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/version.h>

#include <tuple>

#if TORCH_VERSION_MAJOR >= 2
#include <ATen/ops/scaled_dot_product_attention.h>
#else
#include <ATen/ops/_scaled_dot_product_attention.h>
#endif

namespace trireme::compat {

// Attention with softmax over the last dim: q, k, v [B, H, T, D], the same number of heads; scale 1
// / sqrt(D). Differentiable.
inline at::Tensor scaled_dot_product_attention(const at::Tensor& q, const at::Tensor& k,
                                               const at::Tensor& v, bool causal) {
#if TORCH_VERSION_MAJOR >= 2
  return at::scaled_dot_product_attention(q, k, v, {}, 0.0, causal);
#else
  return std::get<0>(at::_scaled_dot_product_attention(q, k, v, {}, 0.0, false, causal));
#endif
}

}  // namespace trireme::compat

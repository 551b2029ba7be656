// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Scaled dot-product attention, causal, with grouped queries.
//
// Legend: B sequences, T query tokens, S key tokens (S >= T), H heads, K kv heads, D head width.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// softmax(q k^T / sqrt(D)) v, where query t sees keys 0 .. S - T + t (the queries are the last T of
// the S tokens). Head h reads kv head h / (H / K). q_BTHD: [B, T, H, D]; k_BKSD, v_BKSD: [B, K, S,
// D], the same floating dtype, any strides. Returns [B, T, H, D] contiguous. Gradient: q, k, v.
// Memory: B H T S probabilities are kept for the gradient. Throws ShapeError.
at::Tensor causal_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKSD,
                            const at::Tensor& v_BKSD);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Scaled dot-product attention, causal: grouped queries, a sliding window, packed documents.
//
// Legend: B sequences, T query tokens, S key tokens (S >= T), H heads, K kv heads, D head width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trireme::ops {

// What a query may see beside the causal rule.
struct AttentionMask {
  // A query sees the last `window` keys, its own included; 0: all.
  std::int64_t window = 0;
  // i64 [B, S]: the first token of the document that each token belongs to, none after the token
  // itself; undefined: a sequence is one document.
  at::Tensor document_starts_BS = {};
};

// Document starts of packed sequences [B, S], i64: a document begins with `separator`, or with the
// sequence.
at::Tensor document_starts(const at::Tensor& tokens_BS, std::int64_t separator);

// softmax(q k^T / sqrt(D)) v, where query t sees keys 0 .. S - T + t (the queries are the last T of
// the S tokens), less what the mask hides. Head h reads kv head h / (H / K). q_BTHD: [B, T, H, D];
// k_BKSD, v_BKSD: [B, K, S, D], the same floating dtype, any strides. Returns [B, T, H, D]
// contiguous. Gradient: q, k, v. On the CPU in f32 and bf16, for D <= 256, no T x S matrix exists,
// scores and sums are f32 (kernels/attention_kernels.h), and beside the tensors named only [B, H,
// T] f32 is kept. On a CUDA device LibTorch 2's fused attention runs where nothing but the causal
// rule hides keys and T = S or T = 1; which kernel that is, LibTorch decides: for f32 and bf16 none
// of the usual ones holds T x S scores, and backward's sums may come in any order
// (Context::setDeterministicAlgorithms). Else LibTorch's operations run, which keep B H T S
// probabilities. Throws ShapeError.
at::Tensor causal_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKSD,
                            const at::Tensor& v_BKSD, const AttentionMask& mask = {});

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Causal attention to a part of the keys at a time, for keys that are not in one place: the results
// over several parts add up to attention over them all.
//
//   PartialAttention sum = no_attention(q_BTHD);
//   for (const auto& [k_BKSD, v_BKSD, begin] : parts) {
//     add_attention({q_BTHD, k_BKSD, v_BKSD}, {.query_begin = 40, .key_begin = begin}, sum);
//   }
//   out = sum.out_BTHD.to(q_BTHD.scalar_type());
//
// Parts are cut out of sequences in which every query and key has its place, counted from 0; the
// rows of one part stand in neighbouring places. No autograd: see add_attention_gradients().
//
// Legend: B sequences, T queries, S keys, H heads, K kv heads, D head width. "Wide" is f32, and f64
// for inputs of f64. In f32 and bf16 on the CPU with D <= 256 no T x S matrix exists
// (kernels/attention_kernels.h); else LibTorch's operations hold B H T S scores.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trireme::ops {

// q: [B, T, H, D]; k, v: [B, K, S, D], K dividing H; one floating dtype, any strides.
struct AttentionInputs {
  at::Tensor q_BTHD;
  at::Tensor k_BKSD;
  at::Tensor v_BKSD;
};

// Where the rows stand, and what a query sees of places up to its own.
struct AttentionPart {
  std::int64_t query_begin = 0;
  std::int64_t key_begin = 0;
  // The last `window` places, its own included; 0: all.
  std::int64_t window = 0;
  // i64 [B, T]: the place where each query's document begins; undefined: that of the sequence.
  at::Tensor document_starts_BT = {};
};

// Attention to the keys so far.
struct PartialAttention {
  at::Tensor out_BTHD;      // wide; 0 where a query has seen nothing
  at::Tensor log_sums_BHT;  // wide, contiguous: log of the sum of e^score; then minus infinity
};

// Of no keys at all, for queries q.
PartialAttention no_attention(const at::Tensor& q_BTHD);

// Whether a query sees a key at all: where not, adding changes nothing. Cost: B T.
bool sees_any(const AttentionPart& part, std::int64_t queries, std::int64_t keys);

// Adds these keys to the sum. Blocks. Throws ShapeError.
void add_attention(const AttentionInputs& inputs, const AttentionPart& part, PartialAttention& sum);

// Wide, of the inputs' shapes, any strides with D contiguous.
struct AttentionGradientSums {
  at::Tensor q_BTHD;
  at::Tensor k_BKSD;
  at::Tensor v_BKSD;
};

// Adds the gradients that pass through these keys. attention: over all keys that the queries see,
// not this part's alone, its out rounded to the inputs' dtype. out_grad_BTHD: of that dtype, too.
// Blocks. Throws ShapeError.
void add_attention_gradients(const AttentionInputs& inputs, const AttentionPart& part,
                             const PartialAttention& attention, const at::Tensor& out_grad_BTHD,
                             const AttentionGradientSums& sums);

}  // namespace trireme::ops

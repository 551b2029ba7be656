// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Causal attention in blocks (Dao et al. 2022, algorithms 1 and 4; Rabe and Staats 2021): the T x S
// scores exist one block of kQueryBlock x kKeyBlock at a time, on the thread that works on it.
//
// Forward, for each block of queries: the blocks of keys from the first visible to the last, with a
// running maximum m and sum l of each row. Scores of a block, p = exp(score - m), out = out
// exp(old m - m) + p v. At the end out / l, and m + log l is kept for the gradient.
//
// Backward, for each sequence and kv head: the blocks of keys in order, and for each the heads that
// read it and their blocks of queries in order. p = exp(score - (m + log l)) again, dp = dout v^T,
// ds = p (dp - sum(dout out)); then dv += p^T dout, dk += ds^T q, dq += ds k. Each of these sums is
// one chain over ascending rows, so no bit depends on the threads or on how tasks are cut.
//
// The keys may be a part of those that the queries see. Then a query's log-sum L = m + log l and
// its out over this part and over what came before become those over both: L' = log(e^L +
// e^before), out' = out e^(L - L') + out before e^(before - L'). Backward wants the L and the out
// of all parts, and its sums over the parts are the gradients.
#pragma once

#include <algorithm>
#include <cstdint>

#include "trireme/ops/kernels/element.h"

namespace trireme::ops {

// Where [sequence, head, token, D] lie, in elements; D contiguous.
struct HeadsView {
  void* data = nullptr;
  std::int64_t sequence_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t token_stride = 0;
};

struct AttentionShape {
  Element element = Element::kF32;
  std::int64_t sequences = 0;   // B
  std::int64_t queries = 0;     // T
  std::int64_t keys = 0;        // S
  std::int64_t heads = 0;       // H
  std::int64_t kv_heads = 0;    // K, which divides H
  std::int64_t head_width = 0;  // D, at most kMaxHeadWidth
  float scale = 1;
  // Where in its sequence the first query and the first key stand; a query sees keys up to its own
  // place.
  std::int64_t query_begin = 0;
  std::int64_t key_begin = 0;
  std::int64_t window = 0;  // a query sees this many keys at most, itself included; 0: all
  // Of query t of sequence b, at b document_stride + t: where its document begins; null: one
  // document.
  const std::int64_t* document_starts = nullptr;
  std::int64_t document_stride = 0;
};

inline constexpr std::int64_t kMaxHeadWidth = 256;

// The first place in its sequence that query t sees.
inline std::int64_t first_visible(const AttentionShape& s, std::int64_t sequence, std::int64_t t) {
  const std::int64_t place = s.query_begin + t;
  const std::int64_t first = s.window > 0 ? std::max<std::int64_t>(0, place - s.window + 1) : 0;
  if (s.document_starts == nullptr) return first;
  return std::max(first, s.document_starts[sequence * s.document_stride + t]);
}

// log_sums: f32 [B, H, T]. A query that sees no key: out 0, log-sum minus infinity.
void attention_forward(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
                       const HeadsView& v, const HeadsView& out, float* log_sums);
// The same over these keys and those that out, f32, and log_sums are of already; at first 0 and
// minus infinity.
void attention_forward_added(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
                             const HeadsView& v, const HeadsView& out, float* log_sums);

// Gradients are written, not added. q_grad, k_grad, v_grad: like q, k, v.
struct AttentionGradients {
  HeadsView q, k, v;
};
void attention_backward(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
                        const HeadsView& v, const HeadsView& out, const HeadsView& out_grad,
                        const float* log_sums, const AttentionGradients& gradients);
// The same, added to gradients in f32. out, log_sums: over all keys that the queries see.
void attention_backward_added(const AttentionShape& shape, const HeadsView& q, const HeadsView& k,
                              const HeadsView& v, const HeadsView& out, const HeadsView& out_grad,
                              const float* log_sums, const AttentionGradients& gradients);

// Pairs of a query and a key that it may see, of all sequences: what attention's floating-point
// operations are counted from.
double visible_pairs(const AttentionShape& shape);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Causal attention over a sequence that is cut across ranks, with keys and values that go round
// (Liu et al. 2023, Ring attention).
//
// Rank r of n has the queries, keys and values of its tokens (token_parts.h) and keeps the queries.
// In step s it computes its queries against the keys and values of rank r - s, which rank r - 1 had
// in the step before, while it passes them on to rank r + 1 and gets those of rank r - s - 1. What
// each step finds is added up by log-sums (ops/attention_part.h).
//
//   step          0                        1                         2
//   rank 0 has    own k, v                 those of rank n - 1       those of rank n - 2
//   meanwhile     -> rank 1                -> rank 1                 -> rank 1
//
// Backward, keys and values go round again. Their gradients start one step later where they are
// computed first, at the next rank, follow them round, and come home with the n-1st message, which
// travels while the last pair of the rank's own tokens is computed.
//
// Legend: B sequences, T tokens of this rank, H heads, K kv heads, D head width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trireme/ops/attention.h"

namespace trireme {

class Group;

// softmax(q k^T / sqrt(D)) v over the whole sequence of `tokens` tokens, for those of them that
// this rank has: q_BTHD [B, T, H, D]; k_BKTD, v_BKTD [B, K, T, D]; the same floating dtype, any
// strides, on the CPU; B, H, K, D the same on all ranks. mask: its window, and document_starts
// [B, T] of this rank's tokens, as places in the whole sequence. Returns [B, T, H, D].
//
// Sums are f32 (f64 for f64) and rounded once, also those of gradients. Collective, forward and
// backward, by messages to neighbours, which no other messages of the group may be among; the group
// outlives the backward pass. Blocks; every wait has the group's deadline. Pairs of chunks of which
// nothing is visible are not computed, but travel. Gradient: q, k, v.
//
// Cost: n - 1 messages of 2 B K D T elements forward, and backward n - 1 of those and n - 1 of as
// many in f32 (f64). Memory beside the arguments and the result: the own keys and values, kept for
// backward, and while it computes those of two other ranks (one that computes, one that arrives);
// backward in f32 also the gradients of q, and of keys and values four times (own, computed,
// arriving, leaving).
//
// Throws ShapeError before anything is sent, CommError; ranks whose shapes differ get a CommError
// that names both.
at::Tensor ring_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKTD,
                          const at::Tensor& v_BKTD, std::int64_t tokens,
                          const ops::AttentionMask& mask, Group& cp);

}  // namespace trireme

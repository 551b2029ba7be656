// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Causal attention over a sequence that is cut across ranks, by exchanging tokens for heads (Jacobs
// et al. 2023, DeepSpeed-Ulysses).
//
// Rank r of n has the queries, keys and values of its tokens (token_parts.h). One all_to_all later
// it has those of the whole sequence for 1 / n of the heads, which is plain causal attention, and a
// second one brings every token's result home. Backward the same, the other way round.
//
// The tokens arrive in two ranges for each rank and are put in the order of the sequence as they
// are unpacked, so the two-ended cut, which a ring needs, costs nothing here.
//
// Legend: B sequences, T tokens of this rank, H heads, K kv heads, D head width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trireme/ops/attention.h"

namespace trireme {

class Group;

// As ring_attention(), with the same arguments, H at least as many as ranks. Heads are cut as
// evenly as can be; a kv head goes to every rank that has a head of its group, and its gradients
// are summed in f32. Where documents share a sequence their starts are gathered first, 8 bytes for
// each token.
//
// Cost: of B T (n - 1) / n elements, forward: (H + 2 K) D to other ranks and as many tokens' H D of
// results, where n divides H and K; the same backward. Memory: queries, keys, values and results of
// the whole sequence for 1 / n of the heads, kept for backward, and the messages of one exchange.
// Throws ConfigError for fewer heads than ranks, ShapeError, before anything is sent; CommError.
at::Tensor ulysses_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKTD,
                             const at::Tensor& v_BKTD, std::int64_t tokens,
                             const ops::AttentionMask& mask, Group& cp);

}  // namespace trireme

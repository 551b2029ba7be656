// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Which tokens of a sequence a rank has when the sequence is cut across ranks.
//
// Under the causal rule a late token meets more keys than an early one. So the T tokens are cut
// into 2 n chunks, and rank r of n has chunk r and chunk 2 n - 1 - r (the two-ended cut of
// Megatron-LM's context parallelism; Brandon et al. 2023 balance by interleaving instead): every
// rank has as many pairs of a query and a key, and in every step of a ring two whole chunks.
//
//   n = 3, T = 12       0 1 | 2 3 | 4 5 | 6 7 | 8 9 | 10 11
//   rank                 0     1     2     2     1      0
//
// All ways of attention across ranks use this one cut, so that a model's tokens, positions and loss
// do not depend on the way.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace trireme {

// Neighbouring tokens, by their place in the sequence.
struct TokenRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  std::int64_t size() const { return end - begin; }
  bool operator==(const TokenRange&) const = default;
};

// In ascending order. Chunk c of 2 n is [T c / 2n, T (c + 1) / 2n), rounded down: chunks may differ
// by one token, and be empty where there are fewer tokens than chunks.
using TokenParts = std::array<TokenRange, 2>;

TokenParts token_parts(std::int64_t tokens, int rank, int ranks);

// Of both ranges.
std::int64_t num_tokens(const TokenParts& parts);

// i64 [T of the rank]: their places in the sequence, ascending.
at::Tensor token_positions(const TokenParts& parts);

// What those tokens have of x, along dim; contiguous.
at::Tensor own_tokens(const at::Tensor& x, std::int64_t dim, const TokenParts& parts);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From tokens cut across ranks to heads cut across ranks, and back.
//
//   rank 0 of 2, before          after
//   its tokens, all heads        all tokens, its heads
//
// Legend: B sequences, T tokens, H heads of any kind, D head width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace trireme {

class Group;

namespace detail {

// Heads [begin, end).
struct HeadRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  std::int64_t size() const { return end - begin; }
};

// For each rank those that it computes. Kv heads may be several ranks'.
struct HeadCut {
  std::vector<HeadRange> heads;
  std::vector<HeadRange> kv_heads;
};

// Heads as evenly as can be, each with its kv head: head h reads kv head h / (heads / kv_heads).
// Throws ConfigError where a rank would have none.
HeadCut cut_heads(std::int64_t heads, std::int64_t kv_heads, int ranks);

// One tensor that moves, and who has which of its heads.
struct MovingHeads {
  at::Tensor x;
  std::vector<HeadRange> heads;
};

// x: [B, T of this rank (token_parts.h), H, D], any strides -> [B, tokens, H of this rank, D] in
// the order of the sequence, contiguous. All tensors, of one dtype, B and D, as one all_to_all.
// Collective, blocking. Throws CommError.
std::vector<at::Tensor> tokens_to_heads(const std::vector<MovingHeads>& moving, std::int64_t tokens,
                                        Group& group);

// The other way: x: [B, tokens, H of this rank, D]. A head that several ranks have becomes their
// sum, in f32 (f64), in the order of ranks, rounded once.
std::vector<at::Tensor> heads_to_tokens(const std::vector<MovingHeads>& moving, std::int64_t tokens,
                                        Group& group);

}  // namespace detail
}  // namespace trireme

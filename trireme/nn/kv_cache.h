// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// KvCache: keys and values of the tokens seen so far, for generation. One per batch of sequences.
//
//   KvCache cache;
//   logits_BV = model->decode(prompt_BT, cache);       // the prompt at once
//   logits_BV = model->decode(next_B1, cache);         // then token by token
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace trireme::nn {

// Memory grows by doubling, so that a token costs its own bytes, not those of all before it. Legend
// as in transformer.h.
struct KvCache {
  // By layer, [B, K, capacity, D], of which the first `tokens` are filled; empty before the first
  // call.
  std::vector<at::Tensor> keys;
  std::vector<at::Tensor> values;
  std::int64_t tokens = 0;

  // Writes k, v [B, K, T, D] behind the tokens of the layer (layers come in order) and returns the
  // views [B, K, tokens + T, D] of all. The caller adds T to tokens after the last layer, so a
  // failed pass leaves the cache as it was. Throws ShapeError when B, K or D changed.
  std::pair<at::Tensor, at::Tensor> append(std::size_t layer, const at::Tensor& k_BKTD,
                                           const at::Tensor& v_BKTD);
};

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Attention: causal self-attention with grouped queries.
//
// q, k and v are three matrices, not one: with grouped queries their output dims differ, and tensor
// parallelism shards each by heads. Their flat storage is adjacent (docs/models.md), so a fused
// product can still treat them as one.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "trireme/nn/dropout.h"
#include "trireme/nn/kv_cache.h"
#include "trireme/nn/linear.h"
#include "trireme/nn/model_config.h"
#include "trireme/ops/attention.h"
#include "trireme/ops/rotary.h"

namespace trireme::nn {

// What attention knows of its tokens beside their values.
struct TokenContext {
  std::int64_t sequences = 0;
  std::int64_t tokens = 0;             // of each
  ops::RotaryTable rotary = {};        // undefined tensors with learned positions
  at::Tensor document_starts_BT = {};  // ops::AttentionMask's; undefined: one document
  // Null in training; else the tokens follow those in the cache, and their keys and values enter
  // it.
  KvCache* cache = nullptr;
  DropoutRows dropout = {};
};

// What makes [B, T, H, D] of queries, keys, values and what the model was given of documents, as
// ops::causal_attention does. Differentiable.
using AttentionCore =
    std::function<at::Tensor(const at::Tensor& q_BTHD, const at::Tensor& k_BKSD,
                             const at::Tensor& v_BKSD, const ops::AttentionMask& mask)>;

class AttentionImpl : public torch::nn::Module {
 public:
  // Children q [H D, C], k and v [K D, C], out [C, H D]; biases with gpt2.
  explicit AttentionImpl(const ModelConfig& config);

  // x: [B, T, C], or its rows in any shape that q's input hook, which is k's and v's too, makes
  // [B, T, C] or [B T, C] of. Returns what out makes of [B, T, H D], or of [B T, H D] where q's
  // hook gave rows. layer: this one's number in the cache. A token sees the model's
  // attention_window, in the cache too.
  at::Tensor forward(const at::Tensor& x, const TokenContext& context, std::size_t layer);

  // In the place of ops::causal_attention, but not where there is a cache. Empty: as before.
  void set_core(AttentionCore core) { core_ = std::move(core); }

 private:
  std::int64_t head_width_;
  std::int64_t window_;
  AttentionCore core_;
  Linear q_{nullptr};
  Linear k_{nullptr};
  Linear v_{nullptr};
  Linear out_{nullptr};
};
TORCH_MODULE(Attention);

}  // namespace trireme::nn

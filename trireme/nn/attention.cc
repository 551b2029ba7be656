// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/attention.h"

#include <tuple>

namespace trireme::nn {

AttentionImpl::AttentionImpl(const ModelConfig& config)
    : head_width_(config.head_width()), window_(config.attention_window) {
  const auto C = config.width;
  const auto kv_width = config.kv_heads * head_width_;
  const bool bias = config.is_gpt2();
  q_ = register_module("q", Linear(C, C, LinearOptions{.bias = bias}));
  k_ = register_module("k", Linear(C, kv_width, LinearOptions{.bias = bias}));
  v_ = register_module("v", Linear(C, kv_width, LinearOptions{.bias = bias}));
  out_ = register_module(
      "out", Linear(C, C, LinearOptions{.bias = bias, .role = ParameterRole::kResidualMatrix}));
}

at::Tensor AttentionImpl::forward(const at::Tensor& x, const TokenContext& context,
                                  std::size_t layer) {
  const auto B = context.sequences, T = context.tokens;
  const at::Tensor input = q_->input(x);
  // Heads are counted from the layer's output: a rank of a sharded model has fewer of them.
  const auto heads = [&](const Linear& projection) {
    return projection->product(input).view({B, T, -1, head_width_});
  };
  auto q_BTHD = heads(q_);
  auto k_BTKD = heads(k_);
  if (context.rotary.cos.defined()) {
    q_BTHD = ops::rotate(q_BTHD, context.rotary);
    k_BTKD = ops::rotate(k_BTKD, context.rotary);
  }
  auto k_BKSD = k_BTKD.transpose(1, 2);
  auto v_BKSD = heads(v_).transpose(1, 2);
  if (context.cache != nullptr) {
    std::tie(k_BKSD, v_BKSD) = context.cache->append(layer, k_BKSD, v_BKSD);
  }
  const ops::AttentionMask mask{.window = window_,
                                .document_starts_BS = context.document_starts_BT};
  const at::Tensor mixed = core_ && context.cache == nullptr
                               ? core_(q_BTHD, k_BKSD, v_BKSD, mask)
                               : ops::causal_attention(q_BTHD, k_BKSD, v_BKSD, mask);
  return out_(input.dim() == 2 ? mixed.view({B * T, -1}) : mixed.view({B, T, -1}));
}

}  // namespace trireme::nn

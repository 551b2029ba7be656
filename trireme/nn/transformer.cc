// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>
#include <torch/nn/modules/container/modulelist.h>

#include "trireme/base/error.h"
#include "trireme/ops/loss.h"

namespace trireme::nn {
namespace {

void check_tokens(const at::Tensor& tokens, const char* what) {
  if (tokens.dim() != 2 || tokens.scalar_type() != at::kLong || tokens.numel() == 0) {
    throw_error<ShapeError>("{} must be i64 [sequences, tokens] and not empty; got {} [{}]", what,
                            c10::toString(tokens.scalar_type()), fmt::join(tokens.sizes(), ", "));
  }
}

}  // namespace

BlockImpl::BlockImpl(const ModelConfig& config) {
  attn_norm_ = register_module("attn_norm", Norm(config));
  attn_ = register_module("attn", Attention(config));
  mlp_norm_ = register_module("mlp_norm", Norm(config));
  mlp_ = register_module("mlp", Mlp(config));
}

at::Tensor BlockImpl::forward(const at::Tensor& x_BTC, const ops::RotaryTable& rotary,
                              KvCache* cache, std::size_t layer) {
  const at::Tensor attended = x_BTC + attn_(attn_norm_(x_BTC), rotary, cache, layer);
  return attended + mlp_(mlp_norm_(attended));
}

TransformerImpl::TransformerImpl(const ModelConfig& config) : config_(config) {
  token_embedding_ = register_module("token_embedding", Embedding(config.vocab_size, config.width));
  if (config.is_gpt2()) {
    position_embedding_ =
        register_module("position_embedding", Embedding(config.context, config.width));
  }
  torch::nn::ModuleList blocks;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    blocks_.emplace_back(config);
    blocks->push_back(blocks_.back());
  }
  register_module("blocks", blocks);
  final_norm_ = register_module("final_norm", Norm(config));
  head_ = register_module("head", config.tied()
                                      ? Linear(token_embedding_->weight())
                                      : Linear(config.width, config.vocab_size, LinearOptions{}));
}

at::Tensor TransformerImpl::embed(const at::Tensor& tokens_BT, std::int64_t position) {
  const at::Tensor x_BTC = token_embedding_(tokens_BT);
  if (position_embedding_.is_empty()) {
    return x_BTC;
  }
  const std::int64_t end = position + tokens_BT.size(1);
  if (end > config_.context) {
    throw_error<ShapeError>(
        "{} tokens exceed model.context {}, for which the model has learned positions", end,
        config_.context);
  }
  return x_BTC + position_embedding_->weight().narrow(0, position, tokens_BT.size(1));
}

at::Tensor TransformerImpl::trunk(const at::Tensor& tokens_BT, KvCache* cache) {
  check_tokens(tokens_BT, "tokens");
  const std::int64_t position = cache == nullptr ? 0 : cache->tokens;
  at::Tensor x_BTC = embed(tokens_BT, position);
  ops::RotaryTable rotary;
  if (position_embedding_.is_empty()) {
    rotary = ops::rotary_table(position, tokens_BT.size(1), config_.head_width(),
                               config_.rope_theta, x_BTC.options());
  }
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    x_BTC = blocks_[layer](x_BTC, rotary, cache, layer);
  }
  return x_BTC;
}

at::Tensor TransformerImpl::forward(const at::Tensor& tokens_BT) {
  return head_(final_norm_(trunk(tokens_BT, nullptr)));
}

at::Tensor TransformerImpl::loss(const at::Tensor& tokens_BT, const at::Tensor& targets_BT) {
  check_tokens(targets_BT, "targets");
  if (targets_BT.sizes() != tokens_BT.sizes()) {
    throw_error<ShapeError>("targets [{}] must have the shape of the tokens [{}]",
                            fmt::join(targets_BT.sizes(), ", "),
                            fmt::join(tokens_BT.sizes(), ", "));
  }
  const at::Tensor logits_BTV = forward(tokens_BT);
  return ops::cross_entropy(logits_BTV.flatten(0, 1), targets_BT.reshape({-1}));
}

at::Tensor TransformerImpl::decode(const at::Tensor& tokens_BT, KvCache& cache) {
  const at::NoGradGuard no_grad;
  const at::Tensor last_BC = trunk(tokens_BT, &cache).select(1, tokens_BT.size(1) - 1);
  cache.tokens += tokens_BT.size(1);
  return head_(final_norm_(last_BC)).to(at::kFloat);
}

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Small models with odd sizes, and token batches from a formula.
#pragma once

#include <ATen/ops/empty.h>

#include <cstdint>
#include <string>

#include "trireme/nn/transformer.h"

namespace trireme::testing {

// 2 layers, width 24, 4 heads (2 kv heads with llama), vocabulary 37, 11 positions.
inline nn::ModelConfig small_model_config(const std::string& family) {
  nn::ModelConfig config;
  config.family = family;
  config.layers = 2;
  config.width = 24;
  config.heads = 4;
  config.kv_heads = family == "llama" ? 2 : 0;
  config.mlp_width = 40;
  config.context = 11;
  config.vocab_size = 37;
  config.resolve(0);
  return config;
}

// Of 3 layers; both of a family, with all that the two styles differ in.
// Mixtral: every layer has 5 experts, of which a token uses 2.
inline nn::ModelConfig mixtral_config(const std::string& family = "llama") {
  nn::ModelConfig config = small_model_config(family);
  config.layers = 3;
  config.experts = {.count = 5, .top_k = 2, .width = 20, .z_coefficient = 0.003};
  config.resolve(0);
  return config;
}
// DeepSeek-V3: a dense layer, then 7 experts, of which a token uses 3, and 2 shared ones.
inline nn::ModelConfig deepseek_config(const std::string& family = "llama") {
  nn::ModelConfig config = small_model_config(family);
  config.layers = 3;
  config.experts = {.count = 7,
                    .top_k = 3,
                    .width = 12,
                    .shared = 2,
                    .first_dense = 1,
                    .score = "sigmoid",
                    .scale = 1.5,
                    .balance = "bias",
                    .bias_speed = 0.01};
  config.resolve(0);
  return config;
}

// Token of sequence b at position t: distinct along both, below vocab.
inline at::Tensor formula_tokens(std::int64_t sequences, std::int64_t tokens, std::int64_t vocab,
                                 std::int64_t salt = 0) {
  at::Tensor batch = at::empty({sequences, tokens}, at::kLong);
  auto* out = batch.data_ptr<std::int64_t>();
  for (std::int64_t b = 0; b < sequences; ++b) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      out[b * tokens + t] = (salt * 31 + b * 17 + t * t * 5 + t * 3 + 1) % vocab;
    }
  }
  return batch;
}

}  // namespace trireme::testing

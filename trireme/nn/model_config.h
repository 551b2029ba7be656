// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One config for the decoder-only transformers that Trireme trains: GPT-2, Llama, and what lies
// between.
//
//   ModelConfig config;  config.family = "llama";  config.layers = 4;  ...
//   config.resolve(tokenizer.vocab_size());   // fills what the family decides, then validates
#pragma once

#include <cstdint>
#include <string>

#include "trireme/base/config.h"
#include "trireme/nn/experts_config.h"

namespace trireme::nn {

struct ModelConfig {
  // gpt2: layer norm, learned positions, GELU, biases, tied head. llama: RMS norm, rotary
  // positions, SwiGLU, no biases, free head.
  std::string family = "gpt2";
  std::int64_t layers = 4;
  std::int64_t width = 256;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 0;  // 0: as many as heads; fewer: grouped-query attention
  std::int64_t mlp_width =
      0;  // 0: 4 x width (gpt2), 8/3 x width rounded up to a multiple of 32 (llama)
  std::int64_t context = 256;         // tokens in a training sample; positions with gpt2
  std::int64_t attention_window = 0;  // tokens that a token sees, itself included; 0: all
  // A token sees its own document alone, which begins with end_of_text, and nothing before it in
  // the sample (Llama 3; Grattafiori et al. 2024, 3.2). Else a sample is one text.
  bool separate_documents = false;
  std::int64_t vocab_size = 0;  // 0: the tokenizer's
  double norm_epsilon = 1e-5;
  double rope_theta = 10000.0;
  std::string tie_head =
      "family";  // "family", "yes", "no": whether the output matrix is the embedding
  ExpertsConfig experts = {};

  void visit(ConfigFields& f);
  // Fills the zeros and "family", given the tokenizer's vocabulary (0: vocab_size must be set),
  // then checks. Throws ConfigError with the numbers that clash and what would fit: heads that do
  // not divide the width, kv_heads that do not divide heads, an odd head width with rotary
  // positions, a vocab_size below the tokenizer's, sizes below 1, what ExpertsConfig::resolve()
  // refuses.
  void resolve(std::int64_t tokenizer_vocab_size);

  bool is_gpt2() const { return family == "gpt2"; }
  bool tied() const { return tie_head == "yes"; }
  std::int64_t head_width() const { return width / heads; }
  // Parameters, counted once when tied. After resolve().
  std::int64_t num_parameters() const;
  // Floating-point operations of matrix products, forward and backward, for one token of a sample
  // of context tokens, attention counted as it is masked. Convention: 6 per matrix parameter
  // (embedding lookups excluded, head included; of experts those that a token uses) + 6 x layers x
  // width x context; with a window of W tokens (2 W - W^2 / context) in the place of context.
  double flops_per_token() const;
};

}  // namespace trireme::nn

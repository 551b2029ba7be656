// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Text from a model: token by token, with temperature, top-k and top-p.
//
//   Generator generator(model, tokenizer, {.temperature = 0.8, .top_k = 40});
//   generator.run("int main(", 200, [](std::string_view piece) { std::fwrite(...); return true; });
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "trireme/data/tokenizer.h"
#include "trireme/nn/transformer.h"

namespace trireme {

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the most probable token
  std::int64_t top_k = 0;    // only the k most probable; 0: all
  double top_p = 1.0;        // only the most probable that together reach this probability
  std::uint64_t seed = 1;

  void validate() const;  // throws ConfigError with the value and its range
};

// Draws a token. logits: f32 [V], CPU, contiguous. uniform in [0, 1) decides; the same arguments
// give the same token. At least one token always remains to choose from; equal logits are ordered
// by id.
TokenId sample_token(const at::Tensor& logits, const SamplingOptions& options, double uniform);

// Logits [1, V] of what follows tokens i64 [1, T], f32 on the CPU. The tokens follow those of the
// last call; restart: they are the first.
using Decode = std::function<at::Tensor(const at::Tensor& tokens_BT, bool restart)>;

// Not thread-safe; the references must outlive it.
class Generator {
 public:
  Generator(nn::TransformerImpl& model, const Tokenizer& tokenizer, const SamplingOptions& options);
  // context: tokens that decode sees at most.
  Generator(Decode decode, std::int64_t context, const Tokenizer& tokenizer,
            const SamplingOptions& options);

  // Continues prompt (any bytes; empty starts a new text) by up to max_tokens tokens, or to the end
  // of the text. Calls on_text with pieces that hold whole UTF-8 characters where the bytes allow
  // it, prompt excluded; it returns false to stop. Returns the number of tokens made. Cost: one
  // pass over the prompt, then one token at a time; with learned positions the second half of the
  // context is read again whenever the context is full.
  std::int64_t run(std::string_view prompt, std::int64_t max_tokens,
                   const std::function<bool(std::string_view)>& on_text);

 private:
  // What follows history, of which `seen` tokens are decoded already.
  at::Tensor next_logits(std::vector<std::int64_t>& history, std::size_t& seen);

  Decode decode_;
  const std::size_t context_;
  const Tokenizer& tokenizer_;
  SamplingOptions options_;
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/model_config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/error.h"

namespace trireme::nn {
namespace {

void check_at_least_one(std::string_view key, std::int64_t value) {
  if (value < 1) {
    throw_error<ConfigError>("model.{} is {}; it must be at least 1", key, value);
  }
}

// "1, 2, 4, 8": the divisors of n, for messages that say what would fit.
std::string divisors(std::int64_t n) {
  std::vector<std::int64_t> found;
  for (std::int64_t d = 1; d <= n; ++d) {
    if (n % d == 0) {
      found.push_back(d);
    }
  }
  return fmt::format("{}", fmt::join(found, ", "));
}

// Llama's: two thirds of 4 x width, so that three matrices cost what two do without the gate.
std::int64_t swiglu_width(std::int64_t width) {
  constexpr std::int64_t kMultiple = 32;
  const std::int64_t two_thirds = (8 * width + 2) / 3;
  return (two_thirds + kMultiple - 1) / kMultiple * kMultiple;
}

}  // namespace

void ModelConfig::visit(ConfigFields& f) {
  f.field("family", family,
          "gpt2: layer norm, learned positions, GELU; llama: RMS norm, rotary positions, SwiGLU",
          {"gpt2", "llama"});
  f.field("layers", layers, "transformer blocks");
  f.field("width", width, "elements of the residual stream, per token");
  f.field("heads", heads, "attention heads; divides width");
  f.field("kv_heads", kv_heads, "key and value heads; divides heads; 0: as many as heads");
  f.field("mlp_width", mlp_width,
          "hidden elements of the MLP; 0: 4 x width (gpt2), 8/3 x width up to a multiple of 32 "
          "(llama)");
  f.field("context", context, "tokens in a training sample");
  f.field("attention_window", attention_window,
          "tokens that a token's attention sees, itself included; 0: all before it");
  f.field("separate_documents", separate_documents,
          "a token's attention sees its own document alone, not those before it in the sample");
  f.field("vocab_size", vocab_size, "rows of the embedding; 0: the tokenizer's");
  f.field("norm_epsilon", norm_epsilon, "added to the variance in norms");
  f.field("rope_theta", rope_theta, "base of the rotary positions' wavelengths (llama)");
  f.field("tie_head", tie_head,
          "whether the output matrix is the embedding; family: yes with gpt2, no with llama",
          {"family", "yes", "no"});
  f.section("experts", experts, "many MLPs in the place of one, of which a token uses a few");
}

void ModelConfig::resolve(std::int64_t tokenizer_vocab_size) {
  if (family != "gpt2" && family != "llama") {
    throw_error<ConfigError>("model.family is '{}'; known: gpt2, llama", family);
  }
  if (tie_head == "family") {
    tie_head = is_gpt2() ? "yes" : "no";
  } else if (tie_head != "yes" && tie_head != "no") {
    throw_error<ConfigError>("model.tie_head is '{}'; known: family, yes, no", tie_head);
  }
  check_at_least_one("layers", layers);
  check_at_least_one("width", width);
  check_at_least_one("heads", heads);
  check_at_least_one("context", context);
  if (attention_window < 0) {
    throw_error<ConfigError>("model.attention_window is {}; it must be at least 1, or 0 for all",
                             attention_window);
  }
  kv_heads = kv_heads == 0 ? heads : kv_heads;
  check_at_least_one("kv_heads", kv_heads);
  mlp_width = mlp_width != 0 ? mlp_width : is_gpt2() ? 4 * width : swiglu_width(width);
  check_at_least_one("mlp_width", mlp_width);
  if (width % heads != 0) {
    throw_error<ConfigError>(
        "model.width {} is not divisible by model.heads {}; heads that fit: {}", width, heads,
        divisors(width));
  }
  if (heads % kv_heads != 0) {
    throw_error<ConfigError>(
        "model.heads {} is not divisible by model.kv_heads {}; kv_heads that fit: {}", heads,
        kv_heads, divisors(heads));
  }
  if (!is_gpt2() && head_width() % 2 != 0) {
    throw_error<ConfigError>(
        "model.width {} / model.heads {} gives heads of {} elements; rotary positions need an even "
        "number",
        width, heads, head_width());
  }
  if (vocab_size == 0) {
    vocab_size = tokenizer_vocab_size;
  }
  if (vocab_size < 1) {
    throw_error<ConfigError>("model.vocab_size is {}; without a tokenizer it must be at least 1",
                             vocab_size);
  }
  if (vocab_size < tokenizer_vocab_size) {
    throw_error<ConfigError>(
        "model.vocab_size {} is below the tokenizer's {} tokens; use 0 or at least {}", vocab_size,
        tokenizer_vocab_size, tokenizer_vocab_size);
  }
  if (!(norm_epsilon > 0.0) || !std::isfinite(norm_epsilon)) {
    throw_error<ConfigError>("model.norm_epsilon is {}; it must be above 0", norm_epsilon);
  }
  if (!(rope_theta > 1.0) || !std::isfinite(rope_theta)) {
    throw_error<ConfigError>("model.rope_theta is {}; it must be above 1", rope_theta);
  }
  experts.resolve(layers, mlp_width);
}

namespace {

// Elements of the matrices of an MLP with so many hidden elements.
std::int64_t mlp_matrix_elements(const ModelConfig& c, std::int64_t hidden) {
  return (c.is_gpt2() ? 2 : 3) * c.width * hidden;
}

// Elements of all blocks' matrices, with so many experts to each layer that has any.
std::int64_t block_matrix_elements(const ModelConfig& c, std::int64_t experts) {
  const std::int64_t attention = 2 * c.width * (c.width + c.kv_heads * c.head_width());
  const std::int64_t sparse = c.experts.num_layers(c.layers);
  const std::int64_t mixture =
      sparse == 0 ? 0
                  : c.experts.count * c.width +
                        mlp_matrix_elements(c, (experts + c.experts.shared) * c.experts.width);
  return c.layers * attention + (c.layers - sparse) * mlp_matrix_elements(c, c.mlp_width) +
         sparse * mixture;
}

// Of gpt2's MLPs, all layers'.
std::int64_t mlp_bias_elements(const ModelConfig& c) {
  const ExpertsConfig& e = c.experts;
  const std::int64_t sparse = e.num_layers(c.layers);
  const std::int64_t of_shared = e.shared > 0 ? e.shared * e.width + c.width : 0;
  return (c.layers - sparse) * (c.mlp_width + c.width) +
         sparse * (e.count * (e.width + c.width) + of_shared);
}

}  // namespace

std::int64_t ModelConfig::num_parameters() const {
  const std::int64_t embeddings =
      vocab_size * width * (tied() ? 1 : 2) + (is_gpt2() ? context * width : 0);
  const std::int64_t norm = is_gpt2() ? 2 * width : width;
  const std::int64_t biases =
      is_gpt2() ? layers * (2 * width + 2 * kv_heads * head_width()) + mlp_bias_elements(*this) : 0;
  return embeddings + block_matrix_elements(*this, experts.count) + 2 * layers * norm + biases +
         norm;
}

double ModelConfig::flops_per_token() const {
  const auto matrices =
      static_cast<double>(block_matrix_elements(*this, experts.top_k) + vocab_size * width);
  // Twice the tokens that a token of the sample sees on average.
  const auto T = static_cast<double>(context);
  const auto W = attention_window > 0 ? std::min(static_cast<double>(attention_window), T) : T;
  const double seen = 2 * W - W * W / T;
  return 6.0 * (matrices + static_cast<double>(layers) * static_cast<double>(width) * seen);
}

}  // namespace trireme::nn

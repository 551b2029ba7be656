// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/tensor/tensor_plan.h"

#include "trireme/base/error.h"
#include "trireme/parallel/tensor/activation_exchange.h"

namespace trireme {
namespace {

[[noreturn]] void refuse_units(const std::string& layer, std::int64_t units, const char* what,
                               int ranks) {
  throw_error<ConfigError>("{} has {} {}, which {} ranks of tp cannot share: at most {} ranks",
                           layer, units, what, ranks, units);
}

}  // namespace

TensorPlan tensor_plan(const nn::ModelConfig& config) {
  const AttentionHeads heads{config.heads, config.kv_heads, config.head_width()};
  const bool gpt2 = config.is_gpt2();
  TensorPlan plan = {
      {"token_embedding", TensorCut::kVocabulary},
      {"embedding_dropout", TensorCut::kTokens},
      {"blocks.*.attn_norm", TensorCut::kTokens},
      {"blocks.*.attn.q", TensorCut::kOutputs, heads},
      {"blocks.*.attn.k", TensorCut::kOutputs, heads, true},
      {"blocks.*.attn.v", TensorCut::kOutputs, heads, true},
      {"blocks.*.attn.out", TensorCut::kInputs, heads},
      {"blocks.*.attn_dropout", TensorCut::kTokens},
      {"blocks.*.mlp_norm", TensorCut::kTokens},
      {"blocks.*.mlp_dropout", TensorCut::kTokens},
      {"final_norm", TensorCut::kTokens},
      {"head", TensorCut::kVocabulary},
  };
  const auto add = [&](const char* pattern, TensorCut cut) { plan.push_back({pattern, cut}); };
  if (gpt2) add("position_embedding", TensorCut::kTokens);
  const std::int64_t mixtures = config.experts.num_layers(config.layers);
  if (mixtures < config.layers) {
    add("blocks.*.mlp.up", TensorCut::kOutputs);
    add("blocks.*.mlp.down", TensorCut::kInputs);
    if (!gpt2) add("blocks.*.mlp.gate", TensorCut::kOutputs);
  }
  // Experts are for expert parallelism to spread.
  if (mixtures == 0) return plan;
  add("blocks.*.mlp.router", TensorCut::kTokens);
  add("blocks.*.mlp.experts", TensorCut::kTokens);
  if (config.experts.shared > 0) add("blocks.*.mlp.shared.*", TensorCut::kTokens);
  return plan;
}

void check_tensor_plan(const nn::ModelConfig& config, int ranks) {
  const AttentionHeads heads{config.heads, config.kv_heads, config.head_width()};
  const auto check = [&](const char* layer, std::int64_t size, const TensorRule& rule) {
    dim_part(rule, layer, size, 0, ranks);
  };
  check("blocks.0.attn.q", config.width, {"", TensorCut::kOutputs, heads});
  check("blocks.0.attn.k", config.kv_heads * config.head_width(),
        {"", TensorCut::kOutputs, heads, true});
  if (config.experts.num_layers(config.layers) < config.layers) {
    check("mlp.up", config.mlp_width, {"", TensorCut::kOutputs});
  }
  check("token_embedding", config.vocab_size, {"", TensorCut::kVocabulary});
}

bool matches_pattern(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern.front() != '*') {
    return !name.empty() && name.front() == pattern.front() &&
           matches_pattern(pattern.substr(1), name.substr(1));
  }
  for (std::size_t taken = 0; taken <= name.size(); ++taken) {
    if (matches_pattern(pattern.substr(1), name.substr(taken))) return true;
    if (taken < name.size() && name[taken] == '.') return false;
  }
  return false;
}

DimPart dim_part(const TensorRule& rule, const std::string& layer, std::int64_t size, int rank,
                 int ranks) {
  const auto& [heads, kv_heads, width] = rule.heads;
  if (heads == 0) {
    if (size < ranks) {
      refuse_units(layer, size, rule.cut == TensorCut::kInputs ? "inputs" : "outputs", ranks);
    }
    const auto [begin, end] = detail::even_part(size, rank, ranks);
    return {begin, end, 1, rank};
  }
  const std::int64_t here = rule.keys_or_values ? kv_heads : heads;
  if (size != here * width) {
    throw_error<ConfigError>("{} is {} elements wide, but the plan says {} heads of {}", layer,
                             size, here, width);
  }
  if (heads < ranks) refuse_units(layer, heads, "heads", ranks);
  const std::int64_t queries = heads / kv_heads;  // of a kv head
  if (kv_heads >= ranks) {
    const auto [begin, end] = detail::even_part(kv_heads, rank, ranks);
    const std::int64_t elements = (rule.keys_or_values ? 1 : queries) * width;
    return {begin * elements, end * elements, 1, rank};
  }
  if (ranks % kv_heads != 0) {
    throw_error<ConfigError>(
        "{} has {} kv heads and tp {} ranks: the kv heads must be as many as the ranks at least, "
        "or divide them",
        layer, kv_heads, ranks);
  }
  const int copies = ranks / static_cast<int>(kv_heads);
  const std::int64_t kv_head = rank / copies;
  if (rule.keys_or_values) {
    return {kv_head * width, (kv_head + 1) * width, copies, static_cast<int>(kv_head) * copies};
  }
  const auto [begin, end] = detail::even_part(queries, rank % copies, copies);
  return {(kv_head * queries + begin) * width, (kv_head * queries + end) * width, 1, rank};
}

}  // namespace trireme

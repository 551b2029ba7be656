// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// TensorPlan: how the layers of a model are cut across the ranks of tp, as a table of names.
//
//   TensorPlan plan = tensor_plan(config);                  // of nn::Transformer
//   plan.push_back({"adapter.up", TensorCut::kOutputs});    // and of a layer more
//
// A pair of matrices in a row, the first cut by its outputs and the second by its inputs, needs no
// exchange between them: one sum after the second forward, one before the first backward.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trireme/nn/model_config.h"

namespace trireme {

enum class TensorCut {
  // A Linear by its outputs: rows of the weight, elements of the bias. Column parallel in the
  // literature, which multiplies by the weight's transpose.
  kOutputs,
  // A Linear by its inputs: columns of the weight. Its outputs are sums over the ranks, to which
  // the bias, whole on each, is added once. Row parallel in the literature.
  kInputs,
  // An Embedding by its rows, or a Linear by its outputs, which are then the logits of a
  // vocabulary (LinearImpl::cross_entropy()).
  kVocabulary,
  // Whole on all ranks, for every token on its own: a norm; dropout; an Embedding of positions.
  kTokens,
};

// Heads of attention that stay whole where their matrices are cut: with all queries of a kv head
// while there is one for each rank, else a kv head is on several ranks, which share its queries.
struct AttentionHeads {
  std::int64_t heads = 0;  // 0: no heads, any output or input is as good as another
  std::int64_t kv_heads = 0;
  std::int64_t width = 0;  // elements of a head
};

struct TensorRule {
  std::string pattern;  // name of a layer; * stands for any letters but dots
  TensorCut cut = TensorCut::kTokens;
  AttentionHeads heads = {};
  // Of an output of keys or values, whose heads are kv_heads.
  bool keys_or_values = false;
};

using TensorPlan = std::vector<TensorRule>;

// Of every nn::Transformer with that config, resolved.
TensorPlan tensor_plan(const nn::ModelConfig& config);

// Throws as dim_part() does where the plan of such a model does not fit so many ranks. Pure.
void check_tensor_plan(const nn::ModelConfig& config, int ranks);

// Whether the name is one of the pattern's.
bool matches_pattern(std::string_view pattern, std::string_view name);

// Elements of a dim that a rank has.
struct DimPart {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  int copies = 1;      // ranks that have the same
  int first_rank = 0;  // the lowest of them; they are side by side
};

// Of a dim of `size` that the rule cuts across `ranks`: even but for one unit, so sizes need not be
// divisible. layer: its name, for messages. Pure. Throws ConfigError, with the numbers and those
// that fit: fewer units than ranks; kv heads that neither reach the ranks nor divide them; heads
// that are not the dim's.
DimPart dim_part(const TensorRule& rule, const std::string& layer, std::int64_t size, int rank,
                 int ranks);

}  // namespace trireme

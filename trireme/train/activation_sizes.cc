// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/activation_sizes.h"

#include <algorithm>

#include "trireme/ops/kernels/norm_kernels.h"
#include "trireme/ops/loss.h"
#include "trireme/parallel/tensor/tensor_plan.h"

namespace trireme {
namespace {

using nn::Recompute;

constexpr std::int64_t kF32Bytes = 4, kI64Bytes = 8;

std::int64_t div_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

LargestPart::LargestPart(const nn::ModelConfig& c, std::int64_t tp) {
  const std::int64_t D = c.head_width();
  const AttentionHeads all{c.heads, c.kv_heads, D};
  const auto largest = [&](std::int64_t size, const TensorRule& rule) {
    std::int64_t most = 0;
    for (int rank = 0; rank < tp; ++rank) {
      const DimPart part = dim_part(rule, rule.pattern, size, rank, static_cast<int>(tp));
      most = std::max(most, part.end - part.begin);
    }
    return most;
  };
  q_width = largest(c.width, {"attn.q", TensorCut::kOutputs, all});
  kv_width = largest(c.kv_heads * D, {"attn.k", TensorCut::kOutputs, all, true});
  mlp_width = largest(c.mlp_width, {"mlp.up", TensorCut::kOutputs});
  vocab_size = largest(c.vocab_size, {"token_embedding", TensorCut::kVocabulary});
  heads = q_width / D;
  kv_heads = kv_width / D;
}

std::int64_t rows_of(const TrainConfig& config) {
  return config.batch.micro_batch_size * div_up(config.model.context, config.parallel.cp);
}

TensorBytes::TensorBytes(const TrainConfig& config) {
  const nn::ModelConfig& c = config.model;
  const LargestPart part(c, config.parallel.tp);
  const bool bf16 = config.train.dtype == "bf16", gpt2 = c.is_gpt2();
  const std::int64_t rows = rows_of(config);
  const std::int64_t own = config.parallel.sequence ? div_up(rows, config.parallel.tp) : rows;
  element = bf16 ? 2 : 4;
  stream = own * c.width * element;
  all_rows = rows * c.width * element;
  gathered = config.parallel.sequence ? all_rows : 0;
  q = rows * part.q_width * element;
  kv = rows * part.kv_width * element;
  hidden = rows * part.mlp_width * element;
  if (config.parallel.cp > 1) {
    // Round the ring: keys and values of two others, gradients in f32 of the queries and four
    // times of keys and values. Else the messages of an exchange.
    across = config.parallel.cp_method == "ring" ? 4 * kv + (q + 8 * kv) / element * kF32Bytes
                                                 : 2 * q + 2 * kv;
  }
  moments = own * (gpt2 ? 2 : 1) * kF32Bytes;
  log_sums = rows * part.heads * kF32Bytes;
  norm_partials = ops::norm_blocks(own) * 2 * c.width * kF32Bytes;
  logits = std::min(ops::kLossRows, rows) * part.vocab_size * (kF32Bytes + (bf16 ? element : 0));
  head_gradient = part.vocab_size * c.width * kF32Bytes;
  whole_step = 2 * rows * kI64Bytes + (gpt2 ? 0 : c.context * c.head_width() * kF32Bytes);
  const bool again = config.compute.recompute_mode() == Recompute::kActivations;
  mlp_kept = ((gpt2 ? 2 : 3) - (again ? 1 : 0)) * hidden;
  mlp_gradients = (gpt2 ? 1 : 2) * hidden + (gpt2 || !bf16 ? 0 : all_rows);
  if (c.experts.count > 0) add_mixture(c, rows, again);
}

// Kept: rows by expert, before and after the experts, what these and the shared ones keep, the
// router's scores and what becomes of them. Backward the shared ones go first, then the experts,
// whose results are gone by then.
void TensorBytes::add_mixture(const nn::ModelConfig& c, std::int64_t rows, bool again) {
  const nn::ExpertsConfig& e = c.experts;
  const std::int64_t routed = std::min(rows * e.top_k, e.count * e.capacity(rows));
  const std::int64_t routed_rows = routed * c.width * element;
  const std::int64_t experts = routed * e.width * element;
  const std::int64_t shared = rows * e.shared * e.width * element;
  const std::int64_t scores = 5 * rows * e.count * kF32Bytes + 6 * rows * e.top_k * kI64Bytes;
  const std::int64_t values = (c.is_gpt2() ? 2 : 3) - (again ? 1 : 0);
  const std::int64_t gradients = c.is_gpt2() ? 1 : 2;
  const std::int64_t summed = c.is_gpt2() || element == kF32Bytes ? 0 : routed_rows;
  mixture_kept = 2 * routed_rows + scores + values * (experts + shared);
  mixture_gradients = std::max(gradients * shared, gradients * experts + routed_rows + summed -
                                                       values * shared + (shared > 0 ? stream : 0));
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Attention across ranks, as tests call it: whole sequences in, of which each rank takes its own
// tokens.
//
//   const ContextCase c{.method = "ring", .tokens = 23, .heads = 4, .kv_heads = 2};
//   const Evaluation whole = run_whole(c, at::kFloat);
//   run_threads(3, [&](Group& group) {
//     const TokenParts parts = token_parts(c.tokens, group.rank(), group.size());
//     expect_close(run_own(c, group, at::kFloat), own_part_of(whole, parts), 1e-5, c.name(3));
//   });
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/operations_of_training.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/context/ring_attention.h"
#include "trireme/parallel/context/token_parts.h"
#include "trireme/parallel/context/ulysses_attention.h"

namespace trireme::testing {

struct ContextCase {
  std::string method = "ring";
  std::int64_t sequences = 1;
  std::int64_t tokens = 1;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_width = 4;
  ops::AttentionMask mask = {};

  std::string name(int ranks) const {
    return fmt::format("{} on {}: B {} T {} H {} K {} D {} window {}{}", method, ranks, sequences,
                       tokens, heads, kv_heads, head_width, mask.window,
                       mask.document_starts_BS.defined() ? " packed" : "");
  }
  AttentionSizes sizes() const {
    return {.B = sequences, .T = tokens, .S = tokens, .H = heads, .K = kv_heads, .D = head_width};
  }
};

inline at::Tensor attention_across_ranks(const ContextCase& c, const Tensors& own,
                                         const ops::AttentionMask& mask, Group& group) {
  const auto attention = c.method == "ring" ? ring_attention : ulysses_attention;
  return attention(own[0], own[1], own[2], c.tokens, mask, group);
}

// What a rank has of [q, k, v, ...] of whole sequences: queries by dim 1, the others by dim 2.
inline Tensors own_inputs(const Tensors& whole, const TokenParts& parts) {
  return {own_tokens(whole[0], 1, parts), own_tokens(whole[1], 2, parts),
          own_tokens(whole[2], 2, parts)};
}

inline ops::AttentionMask own_mask(const ops::AttentionMask& mask, const TokenParts& parts) {
  ops::AttentionMask own = mask;
  const at::Tensor& starts = mask.document_starts_BS;
  if (starts.defined()) own.document_starts_BS = own_tokens(starts, 1, parts);
  return own;
}

// The case on this rank, in dtype: what it has of the output and of the gradients.
inline Evaluation run_own(const ContextCase& c, Group& group, at::ScalarType dtype) {
  const TokenParts parts = token_parts(c.tokens, group.rank(), group.size());
  Operation operation = attention_operation(c.sizes(), c.mask);
  Tensors leaves;
  for (const at::Tensor& own : own_inputs(operation.inputs, parts)) {
    leaves.push_back(leaf(own, dtype));
  }
  const at::Tensor out = attention_across_ranks(c, leaves, own_mask(c.mask, parts), group);
  const at::Tensor whole_out = torch::empty(operation.inputs[0].sizes(), dtype);
  const at::Tensor gradient = own_tokens(cotangent(whole_out, 0, Layout::kPlain), 1, parts);
  out.backward(gradient);
  return {{out}, {leaves[0].grad(), leaves[1].grad(), leaves[2].grad()}};
}

// What a rank has of one rank's.
inline Evaluation own_part_of(const Evaluation& whole, const TokenParts& parts) {
  const Tensors gradients = own_inputs(whole.gradients, parts);
  return {{own_tokens(whole.outputs[0], 1, parts)}, gradients};
}

// On one rank in f64, of inputs rounded to the ranks' dtype.
inline Evaluation run_whole(const ContextCase& c, at::ScalarType rounded) {
  const Operation operation = attention_operation(c.sizes(), c.mask);
  Tensors inputs;
  for (const at::Tensor& each : operation.inputs) inputs.push_back(each.to(rounded));
  return evaluate(operation, inputs, at::kDouble);
}

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Every operation of ops/ on sizes that are odd and larger than one of its blocks: what the
// properties of all operations (threads, vector units, gradients in place) are tested on.
//
// Legend: B sequences, T tokens, S key tokens, H heads, K kv heads, D head width, C width.
#pragma once

#include <fmt/format.h>

#include "tests/support/operation.h"
#include "trireme/ops/attention.h"
#include "trireme/ops/embedding.h"
#include "trireme/ops/grouped_linear.h"
#include "trireme/ops/linear.h"
#include "trireme/ops/loss.h"
#include "trireme/ops/norm.h"
#include "trireme/ops/rotary.h"
#include "trireme/ops/token_routing.h"

namespace trireme::testing {

// i64 values below limit, most of them several times.
inline at::Tensor indices_below(at::IntArrayRef shape, std::int64_t limit) {
  at::Tensor indices = torch::empty(shape, at::kLong);
  const RandomStream random(31, "indices");
  auto* data = indices.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < indices.numel(); ++i) {
    const double share = random.uniform(static_cast<std::uint64_t>(i));
    data[i] = static_cast<std::int64_t>(share * share * static_cast<double>(limit));
  }
  return indices;
}

// x: [2, rows, in].
inline Operation linear_operation(std::int64_t rows, std::int64_t in, std::int64_t out,
                                  bool with_bias) {
  Operation operation{fmt::format("linear {} x {} x {}", 2 * rows, in, out),
                      {normal({2, rows, in}, 0), normal({out, in}, 1)},
                      1,
                      [](const Tensors& t) {
                        return Tensors{ops::linear(t[0], t[1], t.size() > 2 ? t[2] : at::Tensor())};
                      }};
  if (with_bias) operation.inputs.push_back(normal({out}, 2) * 3);
  return operation;
}

inline Operation gelu_mlp_operation(std::int64_t rows, std::int64_t width, std::int64_t hidden) {
  return {fmt::format("gelu_mlp {} x {} x {}", rows, width, hidden),
          {normal({rows, width}, 0), normal({hidden, width}, 1) / 5, normal({hidden}, 2),
           normal({width, hidden}, 3) / 5, normal({width}, 4)},
          1,
          [](const Tensors& t) { return Tensors{ops::gelu_mlp(t[0], t[1], t[2], t[3], t[4])}; }};
}

inline Operation swiglu_mlp_operation(std::int64_t rows, std::int64_t width, std::int64_t hidden) {
  return {fmt::format("swiglu_mlp {} x {} x {}", rows, width, hidden),
          {normal({rows, width}, 0), normal({hidden, width}, 1) / 5, normal({hidden, width}, 2) / 5,
           normal({width, hidden}, 3) / 5},
          1,
          [](const Tensors& t) { return Tensors{ops::swiglu_mlp(t[0], t[1], t[2], t[3])}; }};
}

// Rows of 5 experts: many, none, one, and of two of them again; the last expert has none.
inline ops::RowsByExpert uneven_groups() {
  return {{0, 67}, {1, 0}, {2, 1}, {3, 21}, {0, 9}, {2, 33}, {1, 3}};
}
inline constexpr std::int64_t kUnevenRows = 134, kUnevenExperts = 5;

inline Operation grouped_linear_operation(std::int64_t in, std::int64_t out, bool with_bias) {
  const auto E = kUnevenExperts;
  Operation operation{fmt::format("grouped linear {} x {}", in, out),
                      {normal({kUnevenRows, in}, 0), normal({E, out, in}, 1)},
                      1,
                      [](const Tensors& t) {
                        return Tensors{ops::grouped_linear(
                            t[0], t[1], t.size() > 2 ? t[2] : at::Tensor(), uneven_groups())};
                      }};
  if (with_bias) operation.inputs.push_back(normal({E, out}, 2) * 3);
  return operation;
}

inline Operation grouped_gelu_mlp_operation(std::int64_t width, std::int64_t hidden) {
  const auto E = kUnevenExperts;
  return {fmt::format("grouped gelu_mlp {} x {}", width, hidden),
          {normal({kUnevenRows, width}, 0), normal({E, hidden, width}, 1) / 5,
           normal({E, hidden}, 2), normal({E, width, hidden}, 3) / 5, normal({E, width}, 4)},
          1,
          [](const Tensors& t) {
            return Tensors{ops::grouped_gelu_mlp(t[0], t[1], t[2], t[3], t[4], uneven_groups())};
          }};
}

inline Operation grouped_swiglu_mlp_operation(std::int64_t width, std::int64_t hidden) {
  const auto E = kUnevenExperts;
  return {fmt::format("grouped swiglu_mlp {} x {}", width, hidden),
          {normal({kUnevenRows, width}, 0), normal({E, hidden, width}, 1) / 5,
           normal({E, hidden, width}, 2) / 5, normal({E, width, hidden}, 3) / 5},
          1,
          [](const Tensors& t) {
            return Tensors{ops::grouped_swiglu_mlp(t[0], t[1], t[2], t[3], uneven_groups())};
          }};
}

// Routes of tokens that choose 3 of 7 experts each, some of which drop some: tokens with all of
// their choices, with one, and with none.
inline ops::TokenRoutes uneven_routes(std::int64_t tokens, c10::Device device = at::kCPU) {
  const at::Tensor scores = normal({tokens, 7}, 40) + torch::arange(7, at::kDouble) / 5;
  return ops::route_tokens(ops::choose_experts(scores.to(device), 3), 7, tokens / 4);
}

inline Operation gather_tokens_operation(std::int64_t tokens, std::int64_t width) {
  return {fmt::format("gather tokens {} x {}", tokens, width),
          {normal({tokens, width}, 0)},
          1,
          [tokens](const Tensors& t) {
            return Tensors{ops::gather_tokens(t[0], uneven_routes(tokens, t[0].device()))};
          }};
}

// The weights are f32 where the rows are bf16.
inline Operation combine_tokens_operation(std::int64_t tokens, std::int64_t width) {
  const std::int64_t rows = uneven_routes(tokens).choices_M.numel();
  return {fmt::format("combine tokens {} x {}", tokens, width),
          {normal({rows, width}, 0), normal({tokens, 3}, 1)},
          2,
          [tokens](const Tensors& t) {
            const auto dtype = t[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
            return Tensors{
                ops::combine_tokens(t[0], t[1].to(dtype), uneven_routes(tokens, t[0].device()))};
          }};
}

inline Operation router_operation(std::int64_t tokens, std::int64_t width, std::int64_t experts) {
  return {fmt::format("router {} x {} x {}", tokens, width, experts),
          {normal({tokens, width}, 0), normal({experts, width}, 1)},
          1,
          [](const Tensors& t) { return Tensors{ops::router_logits(t[0], t[1])}; }};
}

struct AttentionSizes {
  std::int64_t B = 1, T = 1, S = 1, H = 1, K = 1, D = 1;
};

inline Operation attention_operation(const AttentionSizes& s, const ops::AttentionMask& mask = {}) {
  return {fmt::format("attention B {} T {} S {} H {} K {} D {} window {}{}", s.B, s.T, s.S, s.H,
                      s.K, s.D, mask.window, mask.document_starts_BS.defined() ? " packed" : ""),
          {normal({s.B, s.T, s.H, s.D}, 0), normal({s.B, s.K, s.S, s.D}, 1),
           normal({s.B, s.K, s.S, s.D}, 2)},
          3,
          [mask](const Tensors& t) {
            ops::AttentionMask there = mask;
            if (mask.document_starts_BS.defined()) {
              there.document_starts_BS = mask.document_starts_BS.to(t[0].device());
            }
            return Tensors{ops::causal_attention(t[0], t[1], t[2], there)};
          }};
}

// Document starts [B, S]: documents of the given lengths again and again, each sequence beginning
// at another of them.
inline at::Tensor packed_documents(std::int64_t B, std::int64_t S,
                                   const std::vector<std::int64_t>& lengths) {
  at::Tensor starts = torch::empty({B, S}, at::kLong);
  for (std::int64_t b = 0; b < B; ++b) {
    auto document = static_cast<std::size_t>(b);
    for (std::int64_t s = 0, start = 0; s < S; ++s) {
      if (s - start == lengths[document % lengths.size()]) {
        start = s;
        ++document;
      }
      starts[b][s] = start;
    }
  }
  return starts;
}

enum class NormKind { kLayer, kRms, kAddLayer, kAddRms };

inline Operation norm_operation(NormKind kind, std::int64_t rows, std::int64_t width) {
  constexpr double kEpsilon = 1e-3;
  const bool layer = kind == NormKind::kLayer || kind == NormKind::kAddLayer;
  const bool added = kind == NormKind::kAddLayer || kind == NormKind::kAddRms;
  Operation operation{
      fmt::format("{}{} norm {} x {}", added ? "added " : "", layer ? "layer" : "rms", rows, width),
      {normal({3, rows, width}, 0) * 2 + 0.5},
      added ? std::size_t{2} : std::size_t{1},
      {}};
  if (added) operation.inputs.push_back(normal({3, rows, width}, 1));
  operation.inputs.push_back(normal({width}, 2) + 1.5);
  if (layer) operation.inputs.push_back(normal({width}, 3));
  operation.run = [kind](const Tensors& t) -> Tensors {
    const auto both = [](const ops::AddedNorm& norm) { return Tensors{norm.sum, norm.normed}; };
    switch (kind) {
      case NormKind::kLayer:
        return {ops::layer_norm(t[0], t[1], t[2], kEpsilon)};
      case NormKind::kRms:
        return {ops::rms_norm(t[0], t[1], kEpsilon)};
      case NormKind::kAddLayer:
        return both(ops::add_layer_norm(t[0], t[1], t[2], t[3], kEpsilon));
      default:
        return both(ops::add_rms_norm(t[0], t[1], t[2], kEpsilon));
    }
  };
  return operation;
}

// Every third target is ignored where `ignoring`.
inline Operation loss_operation(std::int64_t rows, std::int64_t vocab, std::int64_t width,
                                bool ignoring) {
  at::Tensor targets = indices_below({rows}, vocab);
  if (ignoring) targets.slice(0, 1, rows, 3).fill_(ops::kIgnoredTarget);
  return {fmt::format("loss {} x {} x {}{}", rows, vocab, width, ignoring ? " ignoring" : ""),
          {normal({rows, width}, 0), normal({vocab, width}, 1)},
          1,
          [targets](const Tensors& t) {
            return Tensors{ops::linear_cross_entropy(t[0], t[1], targets.to(t[0].device()))};
          }};
}

inline Operation embedding_operation(std::int64_t sequences, std::int64_t tokens,
                                     std::int64_t vocab, std::int64_t width, bool with_positions) {
  const at::Tensor indices = indices_below({sequences, tokens}, vocab);
  Operation operation{fmt::format("embedding {} x {}{}", sequences, tokens,
                                  with_positions ? " with positions" : ""),
                      {normal({vocab, width}, 0)},
                      0,
                      [indices](const Tensors& t) {
                        return Tensors{ops::embedding(t[0], indices.to(t[0].device()),
                                                      t.size() > 1 ? t[1] : at::Tensor())};
                      }};
  if (with_positions) operation.inputs.push_back(normal({tokens, width}, 1));
  return operation;
}

inline Operation rotary_operation(const AttentionSizes& s) {
  return {
      fmt::format("rotary B {} T {} H {} D {}", s.B, s.T, s.H, s.D),
      {normal({s.B, s.T, s.H, s.D}, 0)},
      1,
      [s](const Tensors& t) {
        return Tensors{ops::rotate(t[0], ops::rotary_table(5, s.T, s.D, 1000.0, t[0].options()))};
      }};
}

inline std::vector<Operation> operations_of_training() {
  return {
      linear_operation(67, 519, 133, true),
      linear_operation(67, 45, 259, false),
      gelu_mlp_operation(131, 70, 150),
      swiglu_mlp_operation(131, 70, 150),
      grouped_linear_operation(45, 133, true),
      grouped_gelu_mlp_operation(70, 150),
      grouped_swiglu_mlp_operation(70, 150),
      gather_tokens_operation(101, 45),
      combine_tokens_operation(101, 45),
      router_operation(131, 45, 7),
      attention_operation({.B = 2, .T = 201, .S = 205, .H = 4, .K = 2, .D = 20}),
      attention_operation({.B = 2, .T = 201, .S = 201, .H = 3, .K = 3, .D = 20},
                          {.window = 60, .document_starts_BS = packed_documents(2, 201, {90, 7})}),
      norm_operation(NormKind::kLayer, 37, 83),
      norm_operation(NormKind::kRms, 37, 83),
      norm_operation(NormKind::kAddLayer, 37, 83),
      norm_operation(NormKind::kAddRms, 37, 83),
      loss_operation(301, 517, 35, true),
      embedding_operation(3, 101, 13, 45, true),
      rotary_operation({.B = 2, .T = 45, .H = 3, .D = 22})};
}

}  // namespace trireme::testing

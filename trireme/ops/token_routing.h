// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The way of tokens to experts and back: scores, the choice, rows in the order of their experts,
// and the weighted sum of what the experts gave.
//
//   const at::Tensor logits_NE = ops::router_logits(x_NC, router_EC);
//   const at::Tensor experts_Nk = ops::choose_experts(scores_NE, 2);
//   const ops::TokenRoutes routes = ops::route_tokens(experts_Nk, E, capacity);
//   rows_MC = ops::gather_tokens(x_NC, routes);         // by expert
//   y_NC = ops::combine_tokens(f(rows_MC), weights_Nk, routes);
//
// Legend: N tokens, E experts, k choices of a token, M rows that have a place, C width. f32 and
// bf16 on the CPU run on ops' kernels, other dtypes and devices on LibTorch's operations; numbers
// of experts and places are computed on the CPU. Blocks. Any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace trireme::ops {

// x weight^T, in f32 from f32 and bf16 alike (f64 from f64). x: [N, C]; weight: [E, C], of x's
// dtype. Returns [N, E]. Gradient: x, weight. Throws ShapeError.
at::Tensor router_logits(const at::Tensor& x_NC, const at::Tensor& weight_EC);

// The numbers of each token's k experts with the highest scores, the highest first; of equal ones
// the lower number first. scores: [N, E], floating; NaN counts as lowest. Returns i64 [N, k]. No
// gradient. Throws ShapeError unless 1 <= k <= E.
at::Tensor choose_experts(const at::Tensor& scores_NE, std::int64_t k);

// i64 tensors lie on the device of the experts' numbers.
struct TokenRoutes {
  at::Tensor choices_M;              // row m is of choice choices[m] = n k + j: the j-th of token n
  at::Tensor tokens_M;               // and so of token tokens[m] = n
  at::Tensor places_Nk;              // the row of each choice; kNoRow: dropped
  std::vector<std::int64_t> rows;    // of each expert, what is dropped not counted
  std::vector<std::int64_t> chosen;  // of each expert, all
};

// Rows by expert, those of an expert in the order of their tokens. An expert takes the first
// `capacity` of its tokens and drops the rest (Lepikhin et al. 2020, GShard, 2.2): what is dropped
// depends on no token after it. experts: i64 [N, k], a token's all different, each in [0,
// num_experts). Throws ShapeError.
TokenRoutes route_tokens(const at::Tensor& experts_Nk, std::int64_t num_experts,
                         std::int64_t capacity);

// Row m is x of its token. Returns [M, C]. Gradient: x, summed in f32 in the order of a token's
// choices. Throws ShapeError.
at::Tensor gather_tokens(const at::Tensor& x_NC, const TokenRoutes& routes);

// The sum over a token's choices, in their order and in f32, of weight x row; zeros for a token all
// of whose choices are dropped. rows: [M, C]; weights: [N, k], f32 (f64 with f64 rows). Returns [N,
// C] in rows' dtype. Gradient: rows, weights. Throws ShapeError.
at::Tensor combine_tokens(const at::Tensor& rows_MC, const at::Tensor& weights_Nk,
                          const TokenRoutes& routes);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/step_products.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace trireme {
namespace {

auto key(const MatrixProduct& p) {
  return std::tie(p.name, p.batch, p.m, p.k, p.n, p.a_transposed, p.b_transposed, p.share_needed);
}

// A matrix by its stored shape.
std::string matrix(std::int64_t rows, std::int64_t columns, bool transposed) {
  return transposed ? fmt::format("[{}, {}]^T", columns, rows)
                    : fmt::format("[{}, {}]", rows, columns);
}

}  // namespace

double MatrixProduct::flops() const {
  return 2.0 * static_cast<double>(batch) * static_cast<double>(m) * static_cast<double>(k) *
         static_cast<double>(n);
}

double MatrixProduct::needed_flops() const {
  return static_cast<double>(count) * share_needed * flops();
}

std::string MatrixProduct::shape() const {
  return fmt::format("{}{} x {}", batch == 1 ? "" : fmt::format("{} x ", batch),
                     matrix(m, k, a_transposed), matrix(k, n, b_transposed));
}

std::vector<MatrixProduct> linear_products(std::int64_t rows, std::int64_t in, std::int64_t out) {
  return {{.name = "linear forward", .m = rows, .k = in, .n = out, .b_transposed = true},
          {.name = "linear backward", .m = rows, .k = out, .n = in},
          {.name = "linear backward", .m = out, .k = rows, .n = in, .a_transposed = true}};
}

std::vector<MatrixProduct> attention_products(const AttentionShape& shape) {
  const std::int64_t pairs = shape.batch * shape.kv_heads;
  const std::int64_t rows = shape.heads / shape.kv_heads * shape.tokens;
  const std::int64_t keys = shape.tokens, width = shape.head_width;
  constexpr double kCausal = 0.5;
  const auto product = [&](const char* name, std::int64_t m, std::int64_t k, std::int64_t n) {
    return MatrixProduct{
        .name = name, .batch = pairs, .m = m, .k = k, .n = n, .share_needed = kCausal};
  };
  MatrixProduct scores = product("attention forward", rows, width, keys);
  scores.b_transposed = true;                                                    // q k^T
  const MatrixProduct values = product("attention forward", rows, keys, width);  // p v
  MatrixProduct scores_grad = scores;                                            // dy v^T
  MatrixProduct q_grad = values;                                                 // ds k
  scores_grad.name = q_grad.name = "attention backward";
  MatrixProduct kv_grad = product("attention backward", keys, rows, width);
  kv_grad.a_transposed = true;  // p^T dy and ds^T q
  kv_grad.count = 2;
  return {scores, values, scores_grad, q_grad, kv_grad};
}

void add_product(const MatrixProduct& product, std::vector<MatrixProduct>& products) {
  const auto same = std::find_if(products.begin(), products.end(), [&](const MatrixProduct& one) {
    return key(one) == key(product);
  });
  if (same == products.end()) {
    products.push_back(product);
  } else {
    same->count += product.count;
  }
}

std::vector<MatrixProduct> step_products(const nn::ModelConfig& config, std::int64_t batch,
                                         std::int64_t tokens) {
  std::vector<MatrixProduct> products;
  const auto add = [&](std::vector<MatrixProduct> all, std::int64_t times) {
    for (MatrixProduct& product : all) {
      product.count *= times;
      add_product(product, products);
    }
  };
  const std::int64_t rows = batch * tokens, C = config.width, F = config.mlp_width;
  const std::int64_t kv_width = config.kv_heads * config.head_width();
  const std::int64_t L = config.layers;
  add(linear_products(rows, C, C), 2 * L);         // q, out
  add(linear_products(rows, C, kv_width), 2 * L);  // k, v
  // Up, and Llama's gate; down.
  const auto add_mlp = [&](std::int64_t mlp_rows, std::int64_t hidden, std::int64_t times) {
    add(linear_products(mlp_rows, C, hidden), (config.is_gpt2() ? 1 : 2) * times);
    add(linear_products(mlp_rows, hidden, C), times);
  };
  const nn::ExpertsConfig& experts = config.experts;
  const std::int64_t sparse = experts.num_layers(L);
  if (L > sparse) add_mlp(rows, F, L - sparse);
  if (sparse > 0) {
    // Experts as busy as one another, but for a row.
    add(linear_products(rows, C, experts.count), sparse);
    const std::int64_t routed = rows * experts.top_k, each = routed / experts.count;
    const std::int64_t more = routed % experts.count;
    if (more > 0) add_mlp(each + 1, experts.width, sparse * more);
    if (each > 0) add_mlp(each, experts.width, sparse * (experts.count - more));
    if (experts.shared > 0) add_mlp(rows, experts.shared * experts.width, sparse);
  }
  add(linear_products(rows, C, config.vocab_size), 1);  // head
  add(attention_products({.batch = batch,
                          .tokens = tokens,
                          .heads = config.heads,
                          .kv_heads = config.kv_heads,
                          .head_width = config.head_width()}),
      L);
  return products;
}

double total_flops(const std::vector<MatrixProduct>& products) {
  double flops = 0;
  for (const MatrixProduct& product : products) flops += product.needed_flops();
  return flops;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The matrix products of one training step, from shapes alone: what nn::Transformer multiplies,
// forward and backward, for a micro-batch. Pure; nothing is measured here.
//
//   for (const MatrixProduct& product : step_products(config, batch, tokens)) { ... }
//   total_flops(step_products(config, batch, config.context))   // batch context flops_per_token()
//
// A linear layer [N, in] -> [N, out] is three products: forward x W^T, the input's gradient dy W,
// the weight's gradient dy^T x. Attention is six for each of B K pairs of a sequence and a kv head,
// whose G = H / K query heads are stacked into G T rows: q k^T and p v forward; dy v^T, p^T dy,
// ds k and ds^T q backward. What a fused kernel computes again is not counted.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/nn/model_config.h"

namespace trireme {

// [m, k] by [k, n], for each of batch pairs of matrices.
struct MatrixProduct {
  std::string name;  // where it comes from: "linear forward"
  std::int64_t batch = 1;
  std::int64_t m = 0, k = 0, n = 0;
  // Transposed views of a matrix that is stored by rows.
  bool a_transposed = false;
  bool b_transposed = false;
  double share_needed = 1;  // of its FLOPs; causal attention: half
  std::int64_t count = 1;   // of such products in the step

  // Floating-point operations of one such product as it is multiplied, and of all count as far as
  // the result needs them.
  double flops() const;
  double needed_flops() const;
  // "[1024, 768] x [768, 3072]^T", "48 x ..." with a batch.
  std::string shape() const;
};

// Of one linear layer on rows of in elements.
std::vector<MatrixProduct> linear_products(std::int64_t rows, std::int64_t in, std::int64_t out);

struct AttentionShape {
  std::int64_t batch = 1, tokens = 1, heads = 1, kv_heads = 1, head_width = 1;
};
std::vector<MatrixProduct> attention_products(const AttentionShape& shape);

// Of one micro-batch of batch sequences of tokens each, products of the same shape and storage
// together. config resolved.
std::vector<MatrixProduct> step_products(const nn::ModelConfig& config, std::int64_t batch,
                                         std::int64_t tokens);

// Adds a product to those of the same name, shape and storage.
void add_product(const MatrixProduct& product, std::vector<MatrixProduct>& products);

// The needed ones of all.
double total_flops(const std::vector<MatrixProduct>& products);

}  // namespace trireme

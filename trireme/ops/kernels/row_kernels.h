// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Kernels over rows that are neither products nor norms: rotation of heads, rows of embeddings,
// softmax with cross-entropy, activations. All run on ops' threads, block, and give the same bits
// on any number of them.
#pragma once

#include <cstdint>
#include <limits>

#include "trireme/ops/kernels/element.h"

namespace trireme::ops {

// out = x with each head's pairs (d, d + D / 2) turned by the angles of the row's token: x, out:
// [rows, heads, D] contiguous (may be the same); cosines, sines: f32 [tokens, D / 2]; row r has
// token r % tokens. inverse: turned back, which is the gradient.
struct Rotation {
  Element element = Element::kF32;
  const void* x = nullptr;
  void* out = nullptr;
  const float* cosines = nullptr;
  const float* sines = nullptr;
  std::int64_t rows = 0, tokens = 0, heads = 0, head_width = 0;
  bool inverse = false;
};
void rotate_heads(const Rotation& rotation);

// An index that means zeros in the place of a row: of a table whose other rows are elsewhere.
inline constexpr std::int64_t kNoRow = std::numeric_limits<std::int64_t>::min();

// out[r] = table[indices[r]] (+ positions[r % tokens], null: none); rows of `width`.
struct EmbeddingRows {
  Element element = Element::kF32;
  const void* table = nullptr;
  const void* positions = nullptr;
  const std::int64_t* indices = nullptr;
  void* out = nullptr;
  std::int64_t rows = 0, tokens = 0, width = 0;
};
void look_up_rows(const EmbeddingRows& rows);

// to[group of rows] += the sum of from's rows of that group, f32, in the order of `order`: group g
// has the rows order[starts[g]] .. order[starts[g + 1] - 1] and adds to row targets[g].
struct RowGroups {
  Element element = Element::kF32;
  const void* from = nullptr;
  std::int64_t width = 0;
  std::int64_t groups = 0;
  const std::int64_t* order = nullptr;
  const std::int64_t* starts = nullptr;
  const std::int64_t* targets = nullptr;
  float* to = nullptr;
};
void add_row_groups(const RowGroups& groups);

// losses[r] = log sum exp(logits[r]) - logits[r][targets[r]], and, where gradient is given,
// gradient[r] = (softmax(logits[r]) - one at targets[r]) scale. A row with a target below 0 has
// loss and gradient 0. logits: f32 [rows, columns], overwritten; gradient: f32 (may be logits) or
// bf16.
struct CrossEntropyRows {
  float* logits = nullptr;
  const std::int64_t* targets = nullptr;
  std::int64_t rows = 0, columns = 0;
  double* losses = nullptr;
  void* gradient = nullptr;
  Element gradient_element = Element::kF32;
  float scale = 1;
};
void cross_entropy_rows(const CrossEntropyRows& rows);

// The same of rows whose columns are [first, first + columns) of a larger vocabulary, in two parts
// with an exchange between them. sum_exponentials: log_sums[r] = log sum exp(logits[r]) of these
// columns, most[r] the largest of them, and target_logits[r] the target's where it is one of them,
// else 0; logits become exp(logits[r] - most[r]).
struct VocabularyRows {
  float* logits = nullptr;
  const std::int64_t* targets = nullptr;  // of the whole vocabulary; below 0: none
  std::int64_t rows = 0, columns = 0, first = 0;
  float* most = nullptr;
  double* log_sums = nullptr;
  double* target_logits = nullptr;
};
void sum_exponentials(const VocabularyRows& rows);
// With log_sums of the whole vocabulary and the rest as sum_exponentials() left it: gradient[r] =
// (softmax - one at targets[r]) scale in these columns, 0 without a target; f32 (may be logits) or
// bf16.
void softmax_gradient(const VocabularyRows& rows, void* gradient, Element element, float scale);

// out = gelu(before), or, where factor is given, silu(before) factor: the bits that the epilogues
// kGelu and kSwiglu of matrix_product.h store. All [count].
struct Activation {
  Element element = Element::kF32;
  const void* before = nullptr;
  const void* factor = nullptr;
  void* out = nullptr;
  std::int64_t count = 0;
};
void activate(const Activation& activation);

}  // namespace trireme::ops

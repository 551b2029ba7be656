// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Kernels between tokens and the rows that experts compute for them. Both run on ops' threads,
// block, and give the same bits on any number of them.
#pragma once

#include <cstdint>

#include "trireme/ops/kernels/element.h"
#include "trireme/ops/kernels/row_kernels.h"

namespace trireme::ops {

// out[n] = the sum over j of weights[n][j] rows[places[n][j]], f32, in the order of j; a place
// kNoRow adds nothing. weights: f32 [tokens, choices]; null: ones.
struct CombinedRows {
  Element element = Element::kF32;
  const void* rows = nullptr;
  const float* weights = nullptr;
  const std::int64_t* places = nullptr;
  void* out = nullptr;
  std::int64_t tokens = 0, choices = 0, width = 0;
};
void combine_rows(const CombinedRows& c);

// The gradient of that: row p, which is of choice choices[p] = n k + j, becomes weights[n][j]
// from[n], and dots[n][j] = the dot product of from[n] with rows[p], in f32. Of choices without a
// row nothing is written.
struct SpreadRows {
  Element element = Element::kF32;
  const void* from = nullptr;  // [tokens, width]
  const void* rows = nullptr;  // [count, width]
  const float* weights = nullptr;
  const std::int64_t* choices = nullptr;  // [count]
  void* out = nullptr;                    // [count, width]
  float* dots = nullptr;
  std::int64_t count = 0, choices_per_token = 0, width = 0;
};
void spread_rows(const SpreadRows& s);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The elementwise loops of the optimizer, on raw memory. Compiled for several vector widths of
// x86-64, chosen at load time; all give the same bits, because each operation is correctly rounded
// and none is contracted or reordered (the build sets -ffp-contract=off for kernels.cc).
#pragma once

#include <cstdint>

namespace trireme::optim::detail {

// One AdamW update's scalars, computed in f64 and rounded once.
struct AdamWScalars {
  float gradient_scale;
  float beta1;
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float inverse_sqrt_correction2;  // 1 / sqrt(1 - beta2^steps)
  float epsilon;
  float step_size;  // learning rate / (1 - beta1^steps)
};

// What happens to the bf16 copy and to the gradients in the same pass.
struct AdamWExtras {
  std::uint16_t* copy = nullptr;    // receives the bf16 bits of the new weights; null: no copy
  bool stochastic = false;          // round the copy up with a probability, else to nearest even
  std::uint32_t random_key = 0;     // of this step
  std::uint64_t first_element = 0;  // number, in the whole buffer, of the first element here
  bool clear_gradients = false;
};

// The copy alone, of weights that did not change: the same bits as in the step that wrote it.
void round_weights(std::int64_t count, const float* weights, const AdamWExtras& extras);

// keep: what weight decay leaves of a weight, 1 - learning rate x decay.
void adamw_update(const AdamWScalars& s, float keep, std::int64_t count, float* weights,
                  float* gradients, float* first_moment, float* second_moment,
                  const AdamWExtras& extras);

// Elements of a gradient whose sum of squares is one leaf of the norm's tree: part of the
// definition of the result.
inline constexpr std::int64_t kNormBlock = 4096;

// Sum of squares of count elements in f64: 16 interleaved sums, added as a binary tree.
double sum_of_squares(const float* values, std::int64_t count);

}  // namespace trireme::optim::detail

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

// Of the others, rounded from f64. keep: as in adamw_update(); decay: what sgd, adagrad and adam
// add of a weight to its gradient, 0 for what does not decay.
struct SgdScalars {
  float gradient_scale;
  float momentum;
  float learning_rate;
};
struct AdagradScalars {
  float gradient_scale;
  float epsilon;
  float learning_rate;
};
struct LionScalars {
  float gradient_scale;
  float beta1;
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float learning_rate;
};

// What happens to the bf16 copy and to the gradients in the same pass.
struct UpdateExtras {
  std::uint16_t* copy = nullptr;    // receives the bf16 bits of the new weights; null: no copy
  bool stochastic = false;          // round the copy up with a probability, else to nearest even
  std::uint32_t random_key = 0;     // of this step
  std::uint64_t first_element = 0;  // number, in the whole buffer, of the first element here
  bool clear_gradients = false;
};

// The same for the elements from `at` on.
inline UpdateExtras extras_from(UpdateExtras extras, std::int64_t at) {
  if (extras.copy != nullptr) extras.copy += at;
  extras.first_element += static_cast<std::uint64_t>(at);
  return extras;
}

// The copy alone, of weights that did not change: the same bits as in the step that wrote it.
void round_weights(std::int64_t count, const float* weights, const UpdateExtras& extras);

// keep: what weight decay leaves of a weight, 1 - learning rate x decay.
void adamw_update(const AdamWScalars& s, float keep, std::int64_t count, float* weights,
                  float* gradients, float* first_moment, float* second_moment,
                  const UpdateExtras& extras);

void adam_update(const AdamWScalars& s, float decay, std::int64_t count, float* weights,
                 float* gradients, float* first_moment, float* second_moment,
                 const UpdateExtras& extras);
void lion_update(const LionScalars& s, float keep, std::int64_t count, float* weights,
                 float* gradients, float* moment, const UpdateExtras& extras);
// moment: null without momentum.
void sgd_update(const SgdScalars& s, float decay, std::int64_t count, float* weights,
                float* gradients, float* moment, const UpdateExtras& extras);

// sum: of squared gradients.
void adagrad_update(const AdagradScalars& s, float decay, std::int64_t count, float* weights,
                    float* gradients, float* sum, const UpdateExtras& extras);

// LAMB in two passes, between which the norms are found: the moments, and what the weights would be
// changed by; then the change. s.step_size: 1 / (1 - beta1^steps). step: learning rate times the
// trust ratio. decay: what is added of a weight to the direction.
void lamb_direction(const AdamWScalars& s, float decay, std::int64_t count, const float* weights,
                    const float* gradients, float* first_moment, float* second_moment,
                    float* direction);
void lamb_update(const AdamWScalars& s, float decay, float step, std::int64_t count, float* weights,
                 float* gradients, const float* first_moment, const float* second_moment,
                 const UpdateExtras& extras);

// moment = momentum moment + g, direction = g + momentum moment, with g = scale gradient. Gradients
// become zeros with clear.
void nesterov_direction(float momentum, float scale, bool clear, std::int64_t count,
                        float* gradients, float* moment, float* direction);
// to = scale gradient. Gradients become zeros with clear.
void scaled_gradient(float scale, bool clear, std::int64_t count, float* gradients, float* to);
// moment = momentum moment + (1 - momentum) values, which the values become.
void running_mean(float momentum, std::int64_t count, float* moment, float* values);
// weights = keep weights - step direction. Gradients are not looked at.
void apply_direction(float keep, float step, std::int64_t count, float* weights,
                     const float* direction, const UpdateExtras& extras);
// to = a x + b y; to may be x or y.
void combine(float a, const float* x, float b, const float* y, std::int64_t count, float* to);

// values = values a b.
void multiply(float a, const float* b, std::int64_t count, float* values);
// second = beta second + (1 - beta) (g^2 + epsilon), values = g / sqrt(second), with g = values.
void root_mean_square_direction(float beta, float one_minus_beta, float epsilon, std::int64_t count,
                                float* values, float* second);
// sums += values^2, elementwise.
void add_squares(const float* values, std::int64_t count, double* sums);

// Elements of a gradient whose sum of squares is one leaf of the norm's tree: part of the
// definition of the result.
inline constexpr std::int64_t kNormBlock = 4096;

// Sum of squares of count elements in f64: 16 interleaved sums, added as a binary tree.
double sum_of_squares(const float* values, std::int64_t count);

}  // namespace trireme::optim::detail

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/kernels.h"

#include <bit>
#include <cmath>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TRIREME_VECTOR_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TRIREME_VECTOR_CLONES
#endif

namespace trireme::optim::detail {
namespace {

// Round to nearest, ties to even; a NaN stays a NaN.
inline std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const std::uint32_t quiet_nan = (bits >> 16) | 0x40;
  const bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return static_cast<std::uint16_t>(nan ? quiet_nan : rounded);
}

inline float update_one(const AdamWScalars& s, float keep, float weight, float gradient,
                        float& first, float& second) {
  const float g = gradient * s.gradient_scale;
  first = s.beta1 * first + s.one_minus_beta1 * g;
  second = s.beta2 * second + s.one_minus_beta2 * (g * g);
  const float denominator = std::sqrt(second) * s.inverse_sqrt_correction2 + s.epsilon;
  return weight * keep - s.step_size * (first / denominator);
}

}  // namespace

TRIREME_VECTOR_CLONES
void adamw_update(const AdamWScalars& scalars, float keep, std::int64_t count,
                  float* __restrict weights, const float* __restrict gradients,
                  float* __restrict first_moment, float* __restrict second_moment,
                  std::uint16_t* __restrict copy) {
  const AdamWScalars s = scalars;
  if (copy == nullptr) {
    for (std::int64_t i = 0; i < count; ++i) {
      weights[i] = update_one(s, keep, weights[i], gradients[i], first_moment[i], second_moment[i]);
    }
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const float weight =
        update_one(s, keep, weights[i], gradients[i], first_moment[i], second_moment[i]);
    weights[i] = weight;
    copy[i] = to_bf16(weight);
  }
}

TRIREME_VECTOR_CLONES
double sum_of_squares(const float* values, std::int64_t count) {
  constexpr int kLanes = 16;
  double sums[kLanes] = {};
  const std::int64_t whole = count - count % kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      sums[lane] += value * value;
    }
  }
  for (std::int64_t i = whole; i < count; ++i) {
    const double value = values[i];
    sums[i - whole] += value * value;
  }
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) {
      sums[lane] += sums[lane + width];
    }
  }
  return sums[0];
}

}  // namespace trireme::optim::detail

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

// 32 bits that look random, of a number and a key (the finaliser of MurmurHash3, A. Appleby).
inline std::uint32_t scrambled(std::uint32_t number, std::uint32_t key) {
  std::uint32_t h = number ^ key;
  h = (h ^ (h >> 16)) * 0x85EBCA6BU;
  h = (h ^ (h >> 13)) * 0xC2B2AE35U;
  return h ^ (h >> 16);
}

// Up with the probability of the part that is cut off: the mean of the results is the value.
inline std::uint16_t to_bf16_stochastic(float value, std::uint32_t random) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const bool finite = (bits & 0x7F800000) != 0x7F800000;
  const std::uint32_t rounded = (bits + (random & 0xFFFF)) >> 16;
  return finite ? static_cast<std::uint16_t>(rounded) : to_bf16(value);
}

}  // namespace

TRIREME_VECTOR_CLONES
void round_weights(std::int64_t count, const float* __restrict weights, const AdamWExtras& extras) {
  std::uint16_t* __restrict copy = extras.copy;
  const std::uint32_t key = extras.random_key;
  if (extras.stochastic) {
    for (std::int64_t i = 0; i < count; ++i) {
      const auto number =
          static_cast<std::uint32_t>(extras.first_element + static_cast<std::uint64_t>(i));
      copy[i] = to_bf16_stochastic(weights[i], scrambled(number, key));
    }
  } else {
    for (std::int64_t i = 0; i < count; ++i) copy[i] = to_bf16(weights[i]);
  }
}

// In parts that stay in the first-level cache: what follows the update reads nothing from memory.
TRIREME_VECTOR_CLONES
void adamw_update(const AdamWScalars& scalars, float keep, std::int64_t count,
                  float* __restrict weights, float* __restrict gradients,
                  float* __restrict first_moment, float* __restrict second_moment,
                  const AdamWExtras& extras) {
  constexpr std::int64_t kPart = 1024;
  const AdamWScalars s = scalars;
  for (std::int64_t begin = 0; begin < count; begin += kPart) {
    const std::int64_t end = begin + kPart < count ? begin + kPart : count;
    for (std::int64_t i = begin; i < end; ++i) {
      weights[i] = update_one(s, keep, weights[i], gradients[i], first_moment[i], second_moment[i]);
    }
    if (extras.copy != nullptr) {
      AdamWExtras part = extras;
      part.copy += begin;
      part.first_element += static_cast<std::uint64_t>(begin);
      round_weights(end - begin, weights + begin, part);
    }
    if (extras.clear_gradients) {
      for (std::int64_t i = begin; i < end; ++i) gradients[i] = 0.0F;
    }
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

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/kernels.h"

#include <bit>
#include <cmath>

#include "trireme/optim/scrambled.h"
#include "trireme/optim/vector_clones.h"

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

// Adam's step of a gradient that is scaled, in units of s.step_size.
inline float adam_step(const AdamWScalars& s, float g, float& first, float& second) {
  first = s.beta1 * first + s.one_minus_beta1 * g;
  second = s.beta2 * second + s.one_minus_beta2 * (g * g);
  const float denominator = std::sqrt(second) * s.inverse_sqrt_correction2 + s.epsilon;
  return first / denominator;
}

// -1, 0 or 1; a NaN stays a NaN.
inline float sign(float value) {
  const float one = value > 0.0F ? 1.0F : value < 0.0F ? -1.0F : 0.0F;
  return value != value ? value : one;
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
void round_weights(std::int64_t count, const float* __restrict weights,
                   const UpdateExtras& extras) {
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

// update(i) gives the new weight of element i. In parts that stay in the first-level cache: what
// follows the update reads nothing from memory. Compiled anew in each caller, for its vectors.
template <class Update>
[[gnu::always_inline]] inline void update_in_parts(std::int64_t count, float* __restrict weights,
                                                   float* __restrict gradients,
                                                   const UpdateExtras& extras, Update update) {
  constexpr std::int64_t kPart = 1024;
  for (std::int64_t begin = 0; begin < count; begin += kPart) {
    const std::int64_t end = begin + kPart < count ? begin + kPart : count;
    for (std::int64_t i = begin; i < end; ++i) weights[i] = update(i);
    if (extras.copy != nullptr) {
      round_weights(end - begin, weights + begin, extras_from(extras, begin));
    }
    if (extras.clear_gradients) {
      for (std::int64_t i = begin; i < end; ++i) gradients[i] = 0.0F;
    }
  }
}

TRIREME_VECTOR_CLONES
void adamw_update(const AdamWScalars& scalars, float keep, std::int64_t count,
                  float* __restrict weights, float* __restrict gradients,
                  float* __restrict first_moment, float* __restrict second_moment,
                  const UpdateExtras& extras) {
  const AdamWScalars s = scalars;
  update_in_parts(count, weights, gradients, extras, [=](std::int64_t i) {
    const float g = gradients[i] * s.gradient_scale;
    return weights[i] * keep - s.step_size * adam_step(s, g, first_moment[i], second_moment[i]);
  });
}

TRIREME_VECTOR_CLONES
void adam_update(const AdamWScalars& scalars, float decay, std::int64_t count,
                 float* __restrict weights, float* __restrict gradients,
                 float* __restrict first_moment, float* __restrict second_moment,
                 const UpdateExtras& extras) {
  const AdamWScalars s = scalars;
  update_in_parts(count, weights, gradients, extras, [=](std::int64_t i) {
    const float g = gradients[i] * s.gradient_scale + decay * weights[i];
    return weights[i] - s.step_size * adam_step(s, g, first_moment[i], second_moment[i]);
  });
}

TRIREME_VECTOR_CLONES
void lion_update(const LionScalars& scalars, float keep, std::int64_t count,
                 float* __restrict weights, float* __restrict gradients, float* __restrict moment,
                 const UpdateExtras& extras) {
  const LionScalars s = scalars;
  update_in_parts(count, weights, gradients, extras, [=](std::int64_t i) {
    const float g = gradients[i] * s.gradient_scale;
    const float direction = sign(s.beta1 * moment[i] + s.one_minus_beta1 * g);
    moment[i] = s.beta2 * moment[i] + s.one_minus_beta2 * g;
    return weights[i] * keep - s.learning_rate * direction;
  });
}

TRIREME_VECTOR_CLONES
void sgd_update(const SgdScalars& scalars, float decay, std::int64_t count,
                float* __restrict weights, float* __restrict gradients, float* __restrict moment,
                const UpdateExtras& extras) {
  const SgdScalars s = scalars;
  if (moment == nullptr) {
    update_in_parts(count, weights, gradients, extras, [=](std::int64_t i) {
      const float g = gradients[i] * s.gradient_scale + decay * weights[i];
      return weights[i] - s.learning_rate * g;
    });
    return;
  }
  update_in_parts(count, weights, gradients, extras, [=](std::int64_t i) {
    const float g = gradients[i] * s.gradient_scale + decay * weights[i];
    moment[i] = s.momentum * moment[i] + g;
    return weights[i] - s.learning_rate * moment[i];
  });
}

TRIREME_VECTOR_CLONES
void adagrad_update(const AdagradScalars& scalars, float decay, std::int64_t count,
                    float* __restrict weights, float* __restrict gradients, float* __restrict sum,
                    const UpdateExtras& extras) {
  const AdagradScalars s = scalars;
  update_in_parts(count, weights, gradients, extras, [=](std::int64_t i) {
    const float g = gradients[i] * s.gradient_scale + decay * weights[i];
    sum[i] = sum[i] + g * g;
    return weights[i] - s.learning_rate * (g / (std::sqrt(sum[i]) + s.epsilon));
  });
}

namespace {

// Adam's step without its update of the moments.
inline float direction_of(const AdamWScalars& s, float decay, float weight, float first,
                          float second) {
  const float denominator = std::sqrt(second) * s.inverse_sqrt_correction2 + s.epsilon;
  return s.step_size * (first / denominator) + decay * weight;
}

}  // namespace

TRIREME_VECTOR_CLONES
void lamb_direction(const AdamWScalars& scalars, float decay, std::int64_t count,
                    const float* __restrict weights, const float* __restrict gradients,
                    float* __restrict first_moment, float* __restrict second_moment,
                    float* __restrict direction) {
  const AdamWScalars s = scalars;
  for (std::int64_t i = 0; i < count; ++i) {
    adam_step(s, gradients[i] * s.gradient_scale, first_moment[i], second_moment[i]);
    direction[i] = direction_of(s, decay, weights[i], first_moment[i], second_moment[i]);
  }
}

TRIREME_VECTOR_CLONES
void lamb_update(const AdamWScalars& scalars, float decay, float step, std::int64_t count,
                 float* __restrict weights, float* __restrict gradients,
                 const float* __restrict first_moment, const float* __restrict second_moment,
                 const UpdateExtras& extras) {
  const AdamWScalars s = scalars;
  update_in_parts(count, weights, gradients, extras, [=](std::int64_t i) {
    return weights[i] -
           step * direction_of(s, decay, weights[i], first_moment[i], second_moment[i]);
  });
}

TRIREME_VECTOR_CLONES
void nesterov_direction(float momentum, float scale, bool clear, std::int64_t count,
                        float* __restrict gradients, float* __restrict moment,
                        float* __restrict direction) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradients[i] * scale;
    moment[i] = momentum * moment[i] + g;
    direction[i] = g + momentum * moment[i];
  }
  for (std::int64_t i = 0; clear && i < count; ++i) gradients[i] = 0.0F;
}

TRIREME_VECTOR_CLONES
void scaled_gradient(float scale, bool clear, std::int64_t count, float* __restrict gradients,
                     float* __restrict to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = gradients[i] * scale;
  for (std::int64_t i = 0; clear && i < count; ++i) gradients[i] = 0.0F;
}

TRIREME_VECTOR_CLONES
void running_mean(float momentum, std::int64_t count, float* __restrict moment,
                  float* __restrict values) {
  const float rest = 1.0F - momentum;
  for (std::int64_t i = 0; i < count; ++i) {
    moment[i] = momentum * moment[i] + rest * values[i];
    values[i] = moment[i];
  }
}

TRIREME_VECTOR_CLONES
void apply_direction(float keep, float step, std::int64_t count, float* __restrict weights,
                     const float* __restrict direction, const UpdateExtras& extras) {
  UpdateExtras rest = extras;
  rest.clear_gradients = false;
  update_in_parts(count, weights, nullptr, rest,
                  [=](std::int64_t i) { return weights[i] * keep - step * direction[i]; });
}

TRIREME_VECTOR_CLONES
void combine(float a, const float* x, float b, const float* y, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = a * x[i] + b * y[i];
}

TRIREME_VECTOR_CLONES
void multiply(float a, const float* __restrict b, std::int64_t count, float* __restrict values) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = values[i] * a * b[i];
}

TRIREME_VECTOR_CLONES
void root_mean_square_direction(float beta, float one_minus_beta, float epsilon, std::int64_t count,
                                float* __restrict values, float* __restrict second) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = values[i];
    second[i] = beta * second[i] + one_minus_beta * (g * g + epsilon);
    values[i] = g / std::sqrt(second[i]);
  }
}

TRIREME_VECTOR_CLONES
void add_squares(const float* __restrict values, std::int64_t count, double* __restrict sums) {
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = values[i];
    sums[i] += value * value;
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

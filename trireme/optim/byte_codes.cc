// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/byte_codes.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "trireme/optim/scrambled.h"
#include "trireme/optim/vector_clones.h"

namespace trireme::optim::detail {
namespace {

constexpr int kDecades = 8;  // of the unsigned codes; the signed ones have one less
constexpr float kPowers[kDecades] = {1e0F, 1e1F, 1e2F, 1e3F, 1e4F, 1e5F, 1e6F, 1e7F};

// The code of a share of [0, 1]; top: intervals of the topmost decade. In whole numbers and powers
// of ten that f32 has, so that there is one way to round.
template <int kTop, int kDecadesUsed>
[[gnu::always_inline]] inline std::int32_t code_of(float share) {
  float power = 1.0F;
  std::int32_t intervals = kTop;
  for (int d = 1; d < kDecadesUsed; ++d) {  // compared with what the decade below ends at
    const bool below = share * kPowers[d] <= 1.0F;
    power = below ? kPowers[d] : power;
    intervals = below ? kTop >> d : intervals;
  }
  const float along = (share * power - 0.1F) * (1.0F / 0.9F);
  const auto interval = static_cast<std::int32_t>(along * static_cast<float>(intervals));
  const std::int32_t inside = interval < 0 ? 0 : interval < intervals ? interval : intervals - 1;
  return intervals + inside;
}

// Below half of the smallest value.
constexpr float kSignedZero = 2.75e-7F;

constexpr std::int32_t kLeastUnsigned = 1;

// The value of each code.
constexpr std::array<float, 256> values_of(int top, int decades) {
  std::array<float, 256> values{};
  for (int d = 0; d < decades; ++d) {
    const int intervals = top >> d;
    for (int i = 0; i < intervals; ++i) {
      const double along = (i + 0.5) / intervals;
      values[static_cast<std::size_t>(intervals + i)] =
          static_cast<float>((0.1 + 0.9 * along) / static_cast<double>(kPowers[d]));
    }
  }
  values[static_cast<std::size_t>(2 * top - 1)] = 1.0F;
  return values;
}

constexpr std::array<float, 256> signed_values() {
  std::array<float, 256> values = values_of(64, kDecades - 1);
  for (std::size_t code = 0; code < 128; ++code) values[128 + code] = -values[code];
  return values;
}

constexpr std::array<float, 256> kSignedValues = signed_values();
constexpr std::array<float, 256> kUnsignedValues = values_of(128, kDecades);

[[gnu::always_inline]] inline float largest_of(std::int64_t count, const float* values) {
  float most = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) {
    const float size = std::fabs(values[i]);
    most = size > most ? size : most;
  }
  return most;
}

[[gnu::always_inline]] inline void decode(std::int64_t count, const std::uint8_t* codes,
                                          const float* scales, float* values,
                                          const float* values_of_codes) {
  for (std::int64_t begin = 0; begin < count; begin += kCodeBlock) {
    const std::int64_t end = std::min(begin + kCodeBlock, count);
    const float scale = scales[begin / kCodeBlock];
    for (std::int64_t i = begin; i < end; ++i) values[i] = values_of_codes[codes[i]] * scale;
  }
}

// Of the code that is nearest to the share and the one on the share's other side, the upper one
// with the probability of the way to it. least: below it there is no code.
[[gnu::always_inline]] inline std::int32_t code_by_chance(float share, std::int32_t nearest,
                                                          std::int32_t least,
                                                          const float* values_of_codes,
                                                          std::uint32_t random) {
  const bool above = values_of_codes[nearest] > share;
  const std::int32_t lower = above && nearest > least ? nearest - 1 : nearest;
  const std::int32_t upper = above || share >= 1.0F ? nearest : nearest + 1;
  const float low = values_of_codes[lower], high = values_of_codes[upper];
  const float chance = static_cast<float>(random >> 8) * 0x1p-24F;
  return share - low > chance * (high - low) ? upper : lower;
}

// code(value, divisor, pick) gives a value's code with the help of pick(share, nearest code, least
// code, values of the codes). Compiled anew in each caller, for its vectors.
template <class Code>
[[gnu::always_inline]] inline void encode(std::int64_t count, const float* __restrict values,
                                          std::uint8_t* __restrict codes, float* __restrict scales,
                                          const CodeRounding& rounding, Code code) {
  const auto nearest = [](float, std::int32_t own, std::int32_t, const float*) { return own; };
  const std::uint32_t key = rounding.random_key;
  for (std::int64_t begin = 0; begin < count; begin += kCodeBlock) {
    const std::int64_t end = std::min(begin + kCodeBlock, count);
    const float scale = largest_of(end - begin, values + begin);
    scales[begin / kCodeBlock] = scale;
    const float divisor = scale > 0.0F ? scale : 1.0F;
    if (!rounding.stochastic) {
      for (std::int64_t i = begin; i < end; ++i) {
        codes[i] = static_cast<std::uint8_t>(code(values[i], divisor, nearest));
      }
      continue;
    }
    for (std::int64_t i = begin; i < end; ++i) {
      const auto number =
          static_cast<std::uint32_t>(rounding.first_element + static_cast<std::uint64_t>(i));
      const std::uint32_t random = scrambled(number, key);
      const auto by_chance = [random](float share, std::int32_t own, std::int32_t least,
                                      const float* values_of_codes) {
        return code_by_chance(share, own, least, values_of_codes, random);
      };
      codes[i] = static_cast<std::uint8_t>(code(values[i], divisor, by_chance));
    }
  }
}

}  // namespace

TRIREME_VECTOR_CLONES
void encode_signed(std::int64_t count, const float* __restrict values,
                   std::uint8_t* __restrict codes, float* __restrict scales,
                   const CodeRounding& rounding) {
  encode(count, values, codes, scales, rounding, [](float value, float divisor, auto pick) {
    const float share = std::fabs(value) / divisor;
    const std::int32_t nearest = share < kSignedZero ? 0 : code_of<64, kDecades - 1>(share);
    const std::int32_t code = pick(share, nearest, 0, kSignedValues.data());
    return value < 0.0F && code != 0 ? code + 128 : code;
  });
}

TRIREME_VECTOR_CLONES
void encode_unsigned(std::int64_t count, const float* __restrict values,
                     std::uint8_t* __restrict codes, float* __restrict scales,
                     const CodeRounding& rounding) {
  encode(count, values, codes, scales, rounding, [](float value, float divisor, auto pick) {
    const float share = value / divisor;
    const std::int32_t code =
        pick(share, code_of<128, kDecades>(share), kLeastUnsigned, kUnsignedValues.data());
    return value > 0.0F ? code : 0;
  });
}

TRIREME_VECTOR_CLONES
void decode_signed(std::int64_t count, const std::uint8_t* __restrict codes,
                   const float* __restrict scales, float* __restrict values) {
  decode(count, codes, scales, values, kSignedValues.data());
}

TRIREME_VECTOR_CLONES
void decode_unsigned(std::int64_t count, const std::uint8_t* __restrict codes,
                     const float* __restrict scales, float* __restrict values) {
  decode(count, codes, scales, values, kUnsignedValues.data());
}

}  // namespace trireme::optim::detail

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// bf16 and f16 as raw 16-bit words, to and from f32. Rounding is to nearest, ties to even.
// Branch-free and integer-only where subnormals are concerned, so that loops over them vectorise
// and the bits do not depend on the thread's flush-to-zero setting.
#pragma once

#include <bit>
#include <cstdint>

namespace trireme {

inline float bf16_to_f32(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t f32_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t nan = (bits >> 16) | 0x40u;  // quiet, sign and upper payload kept
  return static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

inline float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t magnitude = bits & 0x7fffu;
  const std::uint32_t exponent = magnitude & 0x7c00u;
  // Exponent bias 15 to 127; infinities and NaN to the top exponent.
  const std::uint32_t normal = (magnitude << 13) + (112u << 23);
  const std::uint32_t special = (magnitude << 13) | 0x7f800000u;
  // A subnormal is m x 2^-24. Put m under the exponent of 2^-14 and take 2^-14 away: exact in f32.
  const float subnormal =
      std::bit_cast<float>((magnitude << 13) + (113u << 23)) - std::bit_cast<float>(113u << 23);
  const std::uint32_t finite = exponent == 0 ? std::bit_cast<std::uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(sign | (exponent == 0x7c00u ? special : finite));
}

inline std::uint16_t f32_to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  // Normal results: bias 127 to 15 and round the 13 lower bits away. A carry into the exponent is
  // what rounding up to the next binade, or to infinity, means.
  const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Subnormal results: the f32 adder rounds at the right bit when 0.5, whose last bit is 2^-24, is
  // added.
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - (126u << 23);
  constexpr std::uint32_t kSmallestNormal = 113u << 23;     // 2^-14
  constexpr std::uint32_t kRoundsToInfinity = 0x477ff000u;  // 65520
  const std::uint32_t finite = magnitude < kSmallestNormal ? subnormal : normal;
  const std::uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  return static_cast<std::uint16_t>(sign | (magnitude >= kRoundsToInfinity ? large : finite));
}

}  // namespace trireme

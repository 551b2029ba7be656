// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <bit>
#include <cstring>

#include "trireme/comm/codec/block_codecs.h"
#include "trireme/comm/codec/vector_clones.h"
#include "trireme/comm/float16.h"

namespace trireme {
namespace {

// Elements that pass through local arrays at a time: wire bytes have no alignment, and what is lost
// may lie where the values are.
constexpr std::int64_t kChunk = 512;

TRIREME_INLINE float finite_or_zero(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000u) == 0x7f800000u ? 0u : bits);
}

TRIREME_VECTOR_CLONES void encode_chunk(const float* values, std::byte* encoded, float* lost,
                                        std::size_t n) {
  alignas(64) float x[kChunk];
  alignas(64) std::uint16_t words[kChunk];
  std::memcpy(x, values, n * sizeof(float));
  for (std::size_t i = 0; i < n; ++i) words[i] = f32_to_bf16(x[i]);
  std::memcpy(encoded, words, n * sizeof(std::uint16_t));
  if (lost == nullptr) return;
  for (std::size_t i = 0; i < n; ++i) lost[i] = finite_or_zero(x[i] - bf16_to_f32(words[i]));
}

TRIREME_VECTOR_CLONES void decode_chunk(const std::byte* encoded, float* values, std::size_t n) {
  alignas(64) std::uint16_t words[kChunk];
  std::memcpy(words, encoded, n * sizeof(std::uint16_t));
  for (std::size_t i = 0; i < n; ++i) values[i] = bf16_to_f32(words[i]);
}

}  // namespace

std::size_t Bf16Codec::encoded_bytes(std::int64_t count) const {
  return static_cast<std::size_t>(count) * sizeof(std::uint16_t);
}

void Bf16Codec::encode(std::span<const float> values, std::span<std::byte> encoded,
                       std::span<float> lost) {
  detail::check_encode_sizes(*this, values, encoded, lost);
  for (std::size_t at = 0; at < values.size(); at += kChunk) {
    encode_chunk(&values[at], &encoded[at * sizeof(std::uint16_t)],
                 lost.empty() ? nullptr : &lost[at],
                 std::min<std::size_t>(kChunk, values.size() - at));
  }
}

void Bf16Codec::decode(std::span<const std::byte> encoded, std::span<float> values) const {
  detail::check_decode_sizes(*this, encoded, values);
  for (std::size_t at = 0; at < values.size(); at += kChunk) {
    decode_chunk(&encoded[at * sizeof(std::uint16_t)], &values[at],
                 std::min<std::size_t>(kChunk, values.size() - at));
  }
}

}  // namespace trireme

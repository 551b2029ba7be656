// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "trireme/comm/codec/block_codecs.h"
#include "trireme/comm/codec/vector_clones.h"

namespace trireme {
namespace {

constexpr std::size_t kElements = Int8Codec::kBlock;
constexpr std::size_t kEncodedBlock = sizeof(float) + kElements;

constexpr float kLevels = 127.0F;
// Below it 127 / magnitude would not be finite, or magnitude / 127 not normal.
constexpr float kSmallest = 0x1.0p-119F;
// The largest scale of which 127 are finite.
constexpr float kLargestScale = 0x1.020406p121F;
// An f32 between 2^23 and 2^24 has no fraction: adding 1.5 x 2^23 rounds to an integer, to nearest
// even, and leaves it in the low bits. Every vector unit adds; not every one rounds.
constexpr float kRounder = 0x1.8p23F;
constexpr std::int32_t kRounderBits = std::bit_cast<std::int32_t>(kRounder);

struct Block {
  alignas(64) float values[kElements];
  alignas(64) std::int8_t levels[kElements];
  float scale;
};

TRIREME_INLINE void quantize(Block& block) {
  std::int32_t largest = 0;  // as bits, where every NaN is larger than infinity
  for (std::size_t i = 0; i < kElements; ++i) {
    largest = std::max(largest, std::bit_cast<std::int32_t>(block.values[i]) & 0x7fffffff);
  }
  const float magnitude = std::bit_cast<float>(largest);
  const bool is_finite = largest < 0x7f800000;
  if (!is_finite || magnitude < kSmallest) {
    std::memset(block.levels, 0, sizeof(block.levels));
    block.scale = is_finite ? 0.0F : std::numeric_limits<float>::quiet_NaN();
    return;
  }
  block.scale = std::min(magnitude / kLevels, kLargestScale);
  const float inverse = kLevels / magnitude;
  for (std::size_t i = 0; i < kElements; ++i) {
    const float rounded = block.values[i] * inverse + kRounder;
    block.levels[i] = static_cast<std::int8_t>(std::bit_cast<std::int32_t>(rounded) - kRounderBits);
  }
}

// n elements, of which the block keeps a copy: what is lost may lie where the values are. The last
// block of a buffer is filled up with zeros, which change neither scale nor levels of the others.
TRIREME_VECTOR_CLONES void encode_block(const float* values, std::byte* encoded, float* lost,
                                        std::size_t n) {
  Block block;
  std::memcpy(block.values, values, n * sizeof(float));
  std::fill(block.values + n, block.values + kElements, 0.0F);
  quantize(block);
  std::memcpy(encoded, &block.scale, sizeof(float));
  std::memcpy(encoded + sizeof(float), block.levels, n);
  if (lost == nullptr) return;
  if (block.scale != block.scale) {  // NOLINT(misc-redundant-expression): NaN
    std::fill(lost, lost + n, 0.0F);
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    lost[i] = block.values[i] - static_cast<float>(block.levels[i]) * block.scale;
  }
}

TRIREME_VECTOR_CLONES void decode_block(const std::byte* encoded, float* values, std::size_t n) {
  float scale;
  std::memcpy(&scale, encoded, sizeof(scale));
  alignas(64) std::int8_t levels[kElements];
  std::memcpy(levels, encoded + sizeof(scale), n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(levels[i]) * scale;
}

}  // namespace

std::size_t Int8Codec::encoded_bytes(std::int64_t count) const {
  const auto n = static_cast<std::size_t>(count);
  return n + (n + kElements - 1) / kElements * sizeof(float);
}

void Int8Codec::encode(std::span<const float> values, std::span<std::byte> encoded,
                       std::span<float> lost) {
  detail::check_encode_sizes(*this, values, encoded, lost);
  std::byte* to = encoded.data();
  for (std::size_t at = 0; at < values.size(); at += kElements, to += kEncodedBlock) {
    encode_block(&values[at], to, lost.empty() ? nullptr : &lost[at],
                 std::min(kElements, values.size() - at));
  }
}

void Int8Codec::decode(std::span<const std::byte> encoded, std::span<float> values) const {
  detail::check_decode_sizes(*this, encoded, values);
  const std::byte* from = encoded.data();
  for (std::size_t at = 0; at < values.size(); at += kElements, from += kEncodedBlock) {
    decode_block(from, &values[at], std::min(kElements, values.size() - at));
  }
}

}  // namespace trireme

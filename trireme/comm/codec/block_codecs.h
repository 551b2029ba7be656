// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The codecs that treat every element, or every small block of elements, alike. Fast, a little loss
// everywhere; the exchange stays dense.
#pragma once

#include "trireme/comm/codec/codec.h"

namespace trireme {

// Two bytes per element, rounded to nearest even: relative error at most 2^-8 of each element.
// Ratio 2. Where it is not finite: that element. Above the largest bf16 (3.39e38) values become
// infinite.
class Bf16Codec final : public Codec {
 public:
  std::string name() const override { return "bf16"; }
  std::size_t encoded_bytes(std::int64_t count) const override;
  std::int64_t granularity() const override { return 1; }
  void encode(std::span<const float> values, std::span<std::byte> encoded,
              std::span<float> lost = {}) override;
  void decode(std::span<const std::byte> encoded, std::span<float> values) const override;
};

// One byte per element and one f32 scale per block of 256: scale = largest magnitude / 127, element
// = nearest integer of value / scale. Error at most scale / 2, that is 1/254 of the largest
// magnitude in the block. Ratio 4 x 256 / 260 = 3.94. Where it is not finite: the whole block
// decodes to NaN. A block whose magnitudes are all below 2^-119 (1.5e-36) decodes to 0.
//
// Layout: for each block its scale, then its elements; the last block may be shorter.
class Int8Codec final : public Codec {
 public:
  static constexpr std::int64_t kBlock = 256;  // elements

  std::string name() const override { return "int8"; }
  std::size_t encoded_bytes(std::int64_t count) const override;
  std::int64_t granularity() const override { return kBlock; }
  void encode(std::span<const float> values, std::span<std::byte> encoded,
              std::span<float> lost = {}) override;
  void decode(std::span<const std::byte> encoded, std::span<float> values) const override;
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// TopKCodec: the elements of largest magnitude, the others as 0. For gradients, and only with error
// feedback: most of a buffer is lost each time and has to come later.
#pragma once

#include <cstdint>
#include <vector>

#include "trireme/comm/codec/codec.h"

namespace trireme {

struct TopKOptions {
  double fraction = 0.01;   // of the elements, in (0, 1]; at least one element
  bool bf16_values = true;  // 2 bytes per value instead of 4; the rounding counts as lost
};

struct SparseElement {
  std::uint32_t index = 0;
  float value = 0;
  bool operator==(const SparseElement&) const = default;
};

// Of elements of equal magnitude those of lower index go first. NaN is larger than infinity and
// that larger than everything else, so what is not finite goes first and arrives as such.
//
// Layout: for each section of 65536 elements how many of them follow (u32); then, in the order of
// the elements, their indices within their sections (u16); then their values. That is 4 bytes per
// element sent (6 with f32 values): ratio 1 / fraction (2 / 3 of it).
class TopKCodec final : public Codec {
 public:
  // Throws ConfigError.
  explicit TopKCodec(const TopKOptions& options = {});

  std::string name() const override;
  std::size_t encoded_bytes(std::int64_t count) const override;
  std::int64_t granularity() const override { return 0; }
  void encode(std::span<const float> values, std::span<std::byte> encoded,
              std::span<float> lost = {}) override;
  void decode(std::span<const std::byte> encoded, std::span<float> values) const override;

  // Elements sent of count: fraction x count to nearest, at least one.
  std::int64_t kept(std::int64_t count) const;
  // decode() without the zeros: kept(count) elements of ascending index.
  std::vector<SparseElement> decode_sparse(std::span<const std::byte> encoded,
                                           std::int64_t count) const;

 private:
  std::size_t value_bytes() const;
  void write(std::int64_t count, std::span<std::byte> encoded);
  void keep_rest(std::span<const float> values, std::span<float> lost) const;

  const TopKOptions options_;
  // Scratch of encode().
  std::vector<SparseElement> chosen_;
  std::vector<std::uint32_t> magnitudes_;
};

}  // namespace trireme

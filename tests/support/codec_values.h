// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Values to be compressed, and how far what comes back is from them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "trireme/base/random.h"
#include "trireme/comm/codec/codec.h"

namespace trireme::testing {

// Standard normal; different for each stream.
inline std::vector<float> normal_values(std::size_t count, std::uint64_t stream) {
  const RandomStream random(7, stream);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(random.normal(i));
  return values;
}

// The cube of a normal variable: kurtosis 46 instead of 3, as gradients are between one and the
// other.
inline std::vector<float> heavy_tailed_values(std::size_t count, std::uint64_t stream) {
  std::vector<float> values = normal_values(count, stream);
  for (float& x : values) x = x * x * x;
  return values;
}

inline double norm(std::span<const float> values) {
  double squares = 0;
  for (const float x : values) squares += double{x} * x;
  return std::sqrt(squares);
}

inline double relative_error(std::span<const float> values, std::span<const float> expected) {
  double squares = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double error = double{values[i]} - double{expected[i]};
    squares += error * error;
  }
  return std::sqrt(squares) / norm(expected);
}

inline std::vector<std::byte> encoded(Codec& codec, std::span<const float> values,
                                      std::span<float> lost = {}) {
  std::vector<std::byte> bytes(codec.encoded_bytes(static_cast<std::int64_t>(values.size())));
  codec.encode(values, bytes, lost);
  return bytes;
}

inline std::vector<float> decoded(const Codec& codec, std::span<const std::byte> bytes,
                                  std::size_t count) {
  std::vector<float> values(count, -77.0F);
  codec.decode(bytes, values);
  return values;
}

inline std::vector<float> there_and_back(Codec& codec, std::span<const float> values) {
  return decoded(codec, encoded(codec, values), values.size());
}

// FNV-1a: equal bits have equal digests.
inline std::uint64_t digest(std::span<const std::byte> bytes) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const std::byte byte : bytes) {
    hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3u;
  }
  return hash;
}

}  // namespace trireme::testing

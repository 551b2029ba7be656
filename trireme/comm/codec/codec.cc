// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/codec/codec.h"

#include "trireme/base/error.h"

namespace trireme {

double compression_ratio(const Codec& codec, std::int64_t count) {
  return static_cast<double>(count) * sizeof(float) /
         static_cast<double>(codec.encoded_bytes(count));
}

namespace detail {

void check_encode_sizes(const Codec& codec, std::span<const float> values,
                        std::span<const std::byte> encoded, std::span<const float> lost) {
  check_decode_sizes(codec, encoded, values);
  if (!lost.empty() && lost.size() != values.size()) {
    throw_error<ShapeError>("codec {}: {} values, but room for what is lost of {}", codec.name(),
                            values.size(), lost.size());
  }
}

void check_decode_sizes(const Codec& codec, std::span<const std::byte> encoded,
                        std::span<const float> values) {
  const std::size_t expected = codec.encoded_bytes(static_cast<std::int64_t>(values.size()));
  if (encoded.size() != expected) {
    throw_error<ShapeError>("codec {}: {} values are {} bytes, but the buffer has {}", codec.name(),
                            values.size(), expected, encoded.size());
  }
}

}  // namespace detail
}  // namespace trireme

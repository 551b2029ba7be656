// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Codec: f32 values as fewer bytes for the wire. Four of them; docs/compression.md compares them.
//
//   Int8Codec codec;                                        // or Bf16Codec, TopKCodec,
//   LowRankCodec std::vector<std::byte> wire(codec.encoded_bytes(count)); codec.encode(values,
//   wire); codec.decode(wire, values);                             // nearly what they were
//
// A sum over ranks by way of a codec is compressed_all_reduce.h; what repeated use loses comes back
// with error_feedback.h.
//
// Same values, same bytes, on every machine. NaN and infinity are not refused, since a plain
// all_reduce does not refuse them either: they decode to values that are not finite (each codec
// says which), so that whoever looks for them after the exchange finds them on every rank.
//
// Threads: one at a time per codec. An encoder may keep state; use one codec per buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace trireme {

class Codec {
 public:
  virtual ~Codec() = default;

  // "int8", "topk(0.01)", "lowrank(4)"
  virtual std::string name() const = 0;
  // Exact, and the same for all values.
  virtual std::size_t encoded_bytes(std::int64_t count) const = 0;
  // An encoding may be cut at multiples of this many elements: that of the first a elements,
  // followed by that of the others, is that of all. 0: it may not be cut.
  virtual std::int64_t granularity() const = 0;

  // encoded has encoded_bytes(values.size()) bytes. lost is empty, or becomes values less what
  // decode() makes of them, 0 where that is not finite; it may be the memory of values. Throws
  // ShapeError for sizes that do not fit.
  virtual void encode(std::span<const float> values, std::span<std::byte> encoded,
                      std::span<float> lost = {}) = 0;
  // Throws ShapeError for sizes that do not fit, CommError for bytes that no encode() makes.
  virtual void decode(std::span<const std::byte> encoded, std::span<float> values) const = 0;
};

// Bytes of count f32 values for one byte of their encoding.
double compression_ratio(const Codec& codec, std::int64_t count);

namespace detail {

// Throw ShapeError.
void check_encode_sizes(const Codec& codec, std::span<const float> values,
                        std::span<const std::byte> encoded, std::span<const float> lost);
void check_decode_sizes(const Codec& codec, std::span<const std::byte> encoded,
                        std::span<const float> values);

}  // namespace detail
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/codec/error_feedback.h"

#include <algorithm>
#include <bit>

#include "trireme/base/error.h"
#include "trireme/comm/codec/vector_clones.h"

namespace trireme {
namespace {

// Elements that stay in a cache from the addition to the encoding.
constexpr std::size_t kPiece = 16384;

// Of the magnitudes, as bits: above those of all finite values when one is not finite.
TRIREME_VECTOR_CLONES std::int32_t largest_magnitude(const float* values, std::size_t n) {
  std::int32_t largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::bit_cast<std::int32_t>(values[i]) & 0x7fffffff);
  }
  return largest;
}

TRIREME_VECTOR_CLONES void add_all(float* __restrict values, const float* __restrict addend,
                                   std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) values[i] += addend[i];
}

void encode_piece(Codec& codec, std::span<const float> values, std::span<float> residual,
                  std::span<std::byte> encoded) {
  if (!detail::all_finite(values)) {
    codec.encode(values, encoded);
    return;
  }
  detail::add(residual, values);
  codec.encode(residual, encoded, residual);
}

}  // namespace

ErrorFeedback::ErrorFeedback(std::int64_t count) : residual_(static_cast<std::size_t>(count)) {}

void ErrorFeedback::encode(Codec& codec, std::span<const float> values,
                           std::span<std::byte> encoded, std::int64_t begin) {
  const auto from = static_cast<std::size_t>(begin);
  if (from > residual_.size() || values.size() > residual_.size() - from) {
    throw_error<ShapeError>("error feedback of {} elements cannot take {} from element {} on",
                            residual_.size(), values.size(), begin);
  }
  const std::span<float> residual = std::span(residual_).subspan(from, values.size());
  detail::check_encode_sizes(codec, values, encoded, residual);
  if (codec.granularity() == 0) {
    encode_piece(codec, values, residual, encoded);
    return;
  }
  const auto granularity = static_cast<std::size_t>(codec.granularity());
  const std::size_t piece = (kPiece + granularity - 1) / granularity * granularity;
  for (std::size_t at = 0; at < values.size(); at += piece) {
    const std::size_t n = std::min(piece, values.size() - at);
    const std::size_t bytes = codec.encoded_bytes(static_cast<std::int64_t>(n));
    encode_piece(codec, values.subspan(at, n), residual.subspan(at, n), encoded.first(bytes));
    encoded = encoded.subspan(bytes);
  }
}

namespace detail {

bool all_finite(std::span<const float> values) {
  return largest_magnitude(values.data(), values.size()) < 0x7f800000;
}

void add(std::span<float> values, std::span<const float> addend) {
  add_all(values.data(), addend.data(), values.size());
}

}  // namespace detail
}  // namespace trireme

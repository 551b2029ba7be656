// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Selection in two passes over the data. A histogram over the leading bits of the magnitudes tells
// in which bin the k-th largest lies. A second pass collects everything from that bin up, which is
// little more than k elements; among those the exact threshold is found.

#include "trireme/comm/codec/top_k_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "trireme/base/error.h"
#include "trireme/comm/codec/vector_clones.h"
#include "trireme/comm/float16.h"

namespace trireme {
namespace {

constexpr std::int64_t kSection = 65536;  // elements; their indices are u16

// A bin is an eighth of a power of two: sign away, 8 bits of exponent, 3 of mantissa.
constexpr int kBinShift = 20;
constexpr std::size_t kBins = std::size_t{1} << (31 - kBinShift);
using Histogram = std::array<std::uint32_t, kBins>;

TRIREME_INLINE std::uint32_t magnitude_of(float x) {
  return std::bit_cast<std::uint32_t>(x) & 0x7fffffffu;
}

std::size_t sections(std::int64_t count) {
  return static_cast<std::size_t>((count + kSection - 1) / kSection);
}

// Neighbouring elements often fall into one bin; four histograms keep an increment from waiting for
// the one before it.
Histogram histogram_of(std::span<const float> values) {
  std::array<Histogram, 4> parts{};
  const auto count_one = [&](std::size_t part, float x) {
    ++parts[part][magnitude_of(x) >> kBinShift];
  };
  std::size_t i = 0;
  for (; i + 4 <= values.size(); i += 4) {
    for (std::size_t part = 0; part < 4; ++part) count_one(part, values[i + part]);
  }
  for (; i < values.size(); ++i) count_one(0, values[i]);
  for (std::size_t bin = 0; bin < kBins; ++bin) {
    parts[0][bin] += parts[1][bin] + parts[2][bin] + parts[3][bin];
  }
  return parts[0];
}

// The smallest magnitude of the bin in which the k-th largest lies.
std::uint32_t lower_bound_of(std::span<const float> values, std::int64_t k) {
  const Histogram histogram = histogram_of(values);
  std::int64_t above = 0;
  std::size_t bin = kBins;
  while (bin > 0 && above < k) above += histogram[--bin];
  return static_cast<std::uint32_t>(bin) << kBinShift;
}

// Appends the elements of at least that magnitude. Most groups hold none and are passed over.
TRIREME_VECTOR_CLONES void collect(const float* values, std::size_t count, std::uint32_t smallest,
                                   std::vector<SparseElement>& chosen) {
  constexpr std::size_t kGroup = 32;
  for (std::size_t at = 0; at < count; at += kGroup) {
    const std::size_t n = std::min(kGroup, count - at);
    if (n == kGroup) {
      std::int32_t largest = 0;
      for (std::size_t i = 0; i < kGroup; ++i) {
        largest = std::max(largest, static_cast<std::int32_t>(magnitude_of(values[at + i])));
      }
      if (static_cast<std::uint32_t>(largest) < smallest) continue;
    }
    for (std::size_t i = at; i < at + n; ++i) {
      if (magnitude_of(values[i]) >= smallest) {
        chosen.push_back({static_cast<std::uint32_t>(i), values[i]});
      }
    }
  }
}

// The k largest of the elements, still ascending by index.
void keep_largest(std::vector<SparseElement>& elements, std::size_t k,
                  std::vector<std::uint32_t>& magnitudes) {
  if (elements.size() == k) return;
  magnitudes.clear();
  for (const SparseElement& element : elements) magnitudes.push_back(magnitude_of(element.value));
  const auto kth = magnitudes.begin() + static_cast<std::ptrdiff_t>(k) - 1;
  std::nth_element(magnitudes.begin(), kth, magnitudes.end(), std::greater<>());
  const std::uint32_t threshold = *kth;
  auto equal_left = k - static_cast<std::size_t>(std::count_if(
                            magnitudes.begin(), kth, [&](auto x) { return x > threshold; }));
  std::erase_if(elements, [&](const SparseElement& element) {
    const std::uint32_t magnitude = magnitude_of(element.value);
    if (magnitude != threshold) return magnitude < threshold;
    return equal_left == 0 || equal_left-- == 0;
  });
}

template <class T>
T read(const std::byte* from, std::size_t index) {
  T value;
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

template <class T>
void write_at(std::byte* to, std::size_t index, T value) {
  std::memcpy(to + index * sizeof(T), &value, sizeof(T));
}

float as_sent(float value, bool bf16) { return bf16 ? bf16_to_f32(f32_to_bf16(value)) : value; }

}  // namespace

TopKCodec::TopKCodec(const TopKOptions& options) : options_(options) {
  if (!(options.fraction > 0 && options.fraction <= 1)) {
    throw_error<ConfigError>("topk: fraction {} is not in (0, 1]", options.fraction);
  }
}

std::string TopKCodec::name() const { return fmt::format("topk({})", options_.fraction); }

std::int64_t TopKCodec::kept(std::int64_t count) const {
  if (count == 0) return 0;
  return std::max<std::int64_t>(1, std::llround(options_.fraction * static_cast<double>(count)));
}

std::size_t TopKCodec::value_bytes() const {
  return options_.bf16_values ? sizeof(std::uint16_t) : sizeof(float);
}

std::size_t TopKCodec::encoded_bytes(std::int64_t count) const {
  if (count > std::int64_t{std::numeric_limits<std::uint32_t>::max()}) {
    throw_error<ShapeError>("topk: {} elements are too many, at most 2^32 - 1; use smaller buffers",
                            count);
  }
  return sections(count) * sizeof(std::uint32_t) +
         static_cast<std::size_t>(kept(count)) * (sizeof(std::uint16_t) + value_bytes());
}

void TopKCodec::encode(std::span<const float> values, std::span<std::byte> encoded,
                       std::span<float> lost) {
  detail::check_encode_sizes(*this, values, encoded, lost);
  const auto count = static_cast<std::int64_t>(values.size());
  const std::int64_t k = kept(count);
  chosen_.clear();
  collect(values.data(), values.size(), lower_bound_of(values, k), chosen_);
  keep_largest(chosen_, static_cast<std::size_t>(k), magnitudes_);
  write(count, encoded);
  if (!lost.empty()) keep_rest(values, lost);
}

void TopKCodec::keep_rest(std::span<const float> values, std::span<float> lost) const {
  if (lost.data() != values.data()) std::copy(values.begin(), values.end(), lost.begin());
  bool all_kept_are_finite = true;
  for (const SparseElement& element : chosen_) {
    const float rest = element.value - as_sent(element.value, options_.bf16_values);
    lost[element.index] = std::isfinite(rest) ? rest : 0.0F;
    all_kept_are_finite = all_kept_are_finite && std::isfinite(element.value);
  }
  // There may be more of those than are sent.
  if (all_kept_are_finite) return;
  for (float& rest : lost) rest = std::isfinite(rest) ? rest : 0.0F;
}

void TopKCodec::write(std::int64_t count, std::span<std::byte> encoded) {
  const std::size_t k = chosen_.size();
  std::byte* counts = encoded.data();
  std::byte* indices = counts + sections(count) * sizeof(std::uint32_t);
  std::byte* values = indices + k * sizeof(std::uint16_t);
  std::fill(counts, indices, std::byte{0});
  for (std::size_t i = 0; i < k; ++i) {
    const SparseElement& element = chosen_[i];
    const std::size_t section = element.index / kSection;
    write_at(counts, section, read<std::uint32_t>(counts, section) + 1);
    write_at(indices, i, static_cast<std::uint16_t>(element.index % kSection));
    if (options_.bf16_values) {
      write_at(values, i, f32_to_bf16(element.value));
    } else {
      write_at(values, i, element.value);
    }
  }
}

std::vector<SparseElement> TopKCodec::decode_sparse(std::span<const std::byte> encoded,
                                                    std::int64_t count) const {
  if (encoded.size() != encoded_bytes(count)) {
    throw_error<ShapeError>("codec {}: {} values are {} bytes, but the buffer has {}", name(),
                            count, encoded_bytes(count), encoded.size());
  }
  const auto k = static_cast<std::size_t>(kept(count));
  const std::byte* counts = encoded.data();
  const std::byte* indices = counts + sections(count) * sizeof(std::uint32_t);
  const std::byte* values = indices + k * sizeof(std::uint16_t);
  std::vector<SparseElement> elements(k);
  std::size_t at = 0;
  for (std::size_t section = 0; section < sections(count); ++section) {
    const std::size_t n = read<std::uint32_t>(counts, section);
    if (n > k - at) throw_error<CommError>("codec {}: damaged bytes, too many elements", name());
    for (const std::size_t end = at + n; at < end; ++at) {
      const std::size_t index = section * kSection + read<std::uint16_t>(indices, at);
      const bool ascends = at == 0 || index > elements[at - 1].index;
      if (!ascends || index >= static_cast<std::size_t>(count)) {
        throw_error<CommError>("codec {}: damaged bytes, element {} of {}", name(), index, count);
      }
      elements[at] = {static_cast<std::uint32_t>(index),
                      options_.bf16_values ? bf16_to_f32(read<std::uint16_t>(values, at))
                                           : read<float>(values, at)};
    }
  }
  if (at != k) throw_error<CommError>("codec {}: damaged bytes, {} elements of {}", name(), at, k);
  return elements;
}

void TopKCodec::decode(std::span<const std::byte> encoded, std::span<float> values) const {
  const auto elements = decode_sparse(encoded, static_cast<std::int64_t>(values.size()));
  std::fill(values.begin(), values.end(), 0.0F);
  for (const SparseElement& element : elements) values[element.index] = element.value;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/codec/low_rank_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/comm/codec/error_feedback.h"
#include "trireme/comm/codec/matrix_kernels.h"

namespace trireme {
namespace {

// A column of which less than this is left beside the others depends on them: what is left is
// mostly rounding. Two passes of Gram-Schmidt make good what cancellation down to here costs.
constexpr float kDependent = 0x1.0p-18F;

MatrixShape shape_of(std::int64_t count, const LowRankOptions& options) {
  if (count < 1 || options.rows < 0 || options.rows > count) {
    throw_error<ConfigError>("lowrank: {} elements are no matrix of {} rows", count, options.rows);
  }
  MatrixShape shape;
  shape.count = count;
  if (options.rows > 0) {
    shape.cols = (count + options.rows - 1) / options.rows;
  } else {
    shape.cols = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(count))));
  }
  shape.rows = (count + shape.cols - 1) / shape.cols;
  const std::int64_t most = std::min(shape.rows, shape.cols);
  if (options.components < 1 || options.components > most) {
    throw_error<ConfigError>(
        "lowrank: a matrix of {} x {} has from 1 to {} components, not {}; set fewer, or send the "
        "buffer as it is",
        shape.rows, shape.cols, most, options.components);
  }
  return shape;
}

// By the power of two that brings the largest element near 1: squares of what is left neither
// overflow nor vanish.
void scale_to_one(std::span<float> column) {
  float largest = 0;
  for (const float x : column) largest = std::max(largest, std::fabs(x));
  if (largest == 0 || !std::isfinite(largest)) return;
  const int exponent = std::ilogb(largest);
  for (float& x : column) x = std::ldexp(x, -exponent);
}

}  // namespace

LowRankCodec::LowRankCodec(std::int64_t count, const LowRankOptions& options)
    : options_(options), shape_(shape_of(count, options)), start_(q_size()) {
  for (std::size_t j = 0; j < components(); ++j) draw_column(j);
}

std::string LowRankCodec::name() const { return fmt::format("lowrank({})", options_.components); }

std::size_t LowRankCodec::p_size() const {
  return components() * static_cast<std::size_t>(shape_.rows);
}

std::size_t LowRankCodec::q_size() const {
  return components() * static_cast<std::size_t>(shape_.cols);
}

std::size_t LowRankCodec::encoded_bytes(std::int64_t count) const {
  if (count != shape_.count) {
    throw_error<ShapeError>("codec {}: made for {} elements, not for {}", name(), shape_.count,
                            count);
  }
  return (p_size() + q_size()) * sizeof(float);
}

void LowRankCodec::draw_column(std::size_t component) {
  const RandomStream stream(options_.seed, "lowrank");
  const auto cols = static_cast<std::size_t>(shape_.cols);
  for (std::size_t i = component * cols; i < (component + 1) * cols; ++i) {
    start_[i] = static_cast<float>(stream.normal(i));
  }
}

void LowRankCodec::project(std::span<const float> values, std::span<float> p) const {
  detail::multiply(shape_, values, start_, options_.components, p);
}

void LowRankCodec::project_back(std::span<const float> values, std::span<const float> p,
                                std::span<float> q) const {
  detail::multiply_transposed(shape_, values, p, options_.components, q);
}

void LowRankCodec::expand(std::span<const float> p, std::span<const float> q,
                          std::span<float> values) const {
  if (!detail::all_finite(p) || !detail::all_finite(q)) {
    std::fill(values.begin(), values.end(), std::numeric_limits<float>::quiet_NaN());
    return;
  }
  detail::multiply_outer(shape_, p, q, options_.components, values);
}

void LowRankCodec::subtract(std::span<const float> values, std::span<const float> p,
                            std::span<const float> q, std::span<float> rest) const {
  if (!detail::all_finite(p) || !detail::all_finite(q)) {
    std::fill(rest.begin(), rest.end(), 0.0F);
    return;
  }
  detail::subtract_outer(shape_, values, p, q, options_.components, rest);
}

// Gram-Schmidt on each column in turn, twice against those before it.
void LowRankCodec::orthonormalize(std::span<float> p) const {
  const auto rows = static_cast<std::size_t>(shape_.rows);
  for (std::size_t j = 0; j < components(); ++j) {
    const std::span<float> column = p.subspan(j * rows, rows);
    scale_to_one(column);
    const float before = std::sqrt(detail::dot(column, column));
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t i = 0; i < j; ++i) {
        const std::span<const float> other = p.subspan(i * rows, rows);
        detail::add_scaled(-detail::dot(other, column), other, column);
      }
    }
    const float norm = std::sqrt(detail::dot(column, column));
    const bool is_dependent = std::isfinite(norm) && norm <= before * kDependent;
    for (float& x : column) x = is_dependent ? 0.0F : x / norm;
  }
}

void LowRankCodec::keep(std::span<const float> q) {
  if (!detail::all_finite(q)) return;
  std::copy(q.begin(), q.end(), start_.begin());
  const auto cols = static_cast<std::size_t>(shape_.cols);
  for (std::size_t j = 0; j < components(); ++j) {
    const auto column = q.subspan(j * cols, cols);
    if (std::all_of(column.begin(), column.end(), [](float x) { return x == 0; })) draw_column(j);
  }
}

void LowRankCodec::encode(std::span<const float> values, std::span<std::byte> encoded,
                          std::span<float> lost) {
  detail::check_encode_sizes(*this, values, encoded, lost);
  p_.resize(p_size());
  q_.resize(q_size());
  project(values, p_);
  orthonormalize(p_);
  project_back(values, p_, q_);
  std::memcpy(encoded.data(), p_.data(), p_.size() * sizeof(float));
  std::memcpy(encoded.data() + p_.size() * sizeof(float), q_.data(), q_.size() * sizeof(float));
  keep(q_);
  if (!lost.empty()) subtract(values, p_, q_, lost);
}

void LowRankCodec::decode(std::span<const std::byte> encoded, std::span<float> values) const {
  detail::check_decode_sizes(*this, encoded, values);
  std::vector<float> p(p_size());
  std::vector<float> q(q_size());
  std::memcpy(p.data(), encoded.data(), p.size() * sizeof(float));
  std::memcpy(q.data(), encoded.data() + p.size() * sizeof(float), q.size() * sizeof(float));
  expand(p, q, values);
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/distinct_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cstdint>
#include <vector>

#include "trireme/base/error.h"

namespace trireme::examples {

DistinctRows distinct_rows(const at::Tensor& ids) {
  const at::Tensor all = ids.contiguous();
  const std::int64_t count = all.numel();
  const auto* id = all.data_ptr<std::int64_t>();
  DistinctRows distinct{at::empty({count}, at::kLong), at::empty(ids.sizes(), at::kLong)};
  auto* known = distinct.ids.data_ptr<std::int64_t>();
  auto* place = distinct.places.data_ptr<std::int64_t>();

  // Open addressing, at most half full. A slot has the place of its id, or -1.
  const auto slots = std::bit_ceil(2 * static_cast<std::size_t>(count) + 2);
  const int shift = 64 - std::countr_zero(slots);
  std::vector<std::int32_t> slot_of(slots, -1);
  std::int64_t number = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    // Knuth's multiplicative hash, volume 3, section 6.4, with 2^64 over the golden ratio.
    auto slot =
        static_cast<std::size_t>(static_cast<std::uint64_t>(id[i]) * 0x9E3779B97F4A7C15 >> shift);
    while (slot_of[slot] >= 0 && known[slot_of[slot]] != id[i]) slot = (slot + 1) & (slots - 1);
    if (slot_of[slot] < 0) {
      slot_of[slot] = static_cast<std::int32_t>(number);
      known[number++] = id[i];
    }
    place[i] = slot_of[slot];
  }
  distinct.ids = distinct.ids.narrow(0, 0, number).clone();
  return distinct;
}

at::Tensor spread(const at::Tensor& rows, const DistinctRows& distinct) {
  std::vector<std::int64_t> shape = distinct.places.sizes().vec();
  shape.push_back(rows.size(1));
  return rows.index_select(0, distinct.places.view({-1})).view(shape);
}

at::Tensor row_gradients(const at::Tensor& gradients, const DistinctRows& distinct) {
  std::vector<std::int64_t> shape = distinct.places.sizes().vec();
  shape.push_back(gradients.size(-1));
  if (gradients.sizes() != at::IntArrayRef(shape) || gradients.scalar_type() != at::kFloat) {
    throw_error<ShapeError>("gradients [{}] of dtype {} for ids [{}]: f32 [{}] would be right",
                            fmt::join(gradients.sizes(), ", "),
                            c10::toString(gradients.scalar_type()),
                            fmt::join(distinct.places.sizes(), ", "), fmt::join(shape, ", "));
  }
  const std::int64_t width = gradients.size(-1), count = distinct.places.numel();
  at::Tensor sums = at::zeros({distinct.ids.size(0), width}, at::kFloat);
  const at::Tensor all = gradients.contiguous();
  const auto* gradient = all.data_ptr<float>();
  const auto* place = distinct.places.data_ptr<std::int64_t>();
  auto* sum = sums.data_ptr<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    float* const to = sum + place[i] * width;
    for (std::int64_t j = 0; j < width; ++j) to[j] += gradient[i * width + j];
  }
  return sums;
}

}  // namespace trireme::examples

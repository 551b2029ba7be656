// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Samples of a click log in the form of Criteo's public ones: was an advertisement clicked,
// thirteen counts, and twenty-six categories.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

namespace trireme::examples {

inline constexpr std::int64_t kClickNumbers = 13;
inline constexpr std::int64_t kClickCategories = 26;

struct ClickBatch {
  at::Tensor labels;      // f32 [B]: 1 for a click
  at::Tensor numbers;     // f32 [B, kClickNumbers], see click_number()
  at::Tensor categories;  // i64 [B, kClickCategories], see category_id()
};

// log(1 + count): 0 for a count that is missing, and for the few negative ones of the public logs.
inline float click_number(std::optional<std::int64_t> count) {
  return static_cast<float>(
      std::log1p(static_cast<double>(std::max<std::int64_t>(count.value_or(0), 0))));
}

// A category by its column, in the bits from 40 on, and its value there, which the log gives as 32
// bits; one that is missing is a value of its own. So one table can hold all columns.
constexpr std::int64_t category_id(std::int64_t column, std::optional<std::uint32_t> value) {
  constexpr std::int64_t kMissing = std::int64_t{1} << 32;
  return column << 40 | (value ? std::int64_t{*value} : kMissing);
}

}  // namespace trireme::examples

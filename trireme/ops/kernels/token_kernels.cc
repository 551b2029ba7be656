// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/token_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "trireme/ops/kernels/token_kernels.cc"
#include <hwy/foreach_target.h>
// After it:
#include <algorithm>

#include "trireme/ops/kernels/simd-inl.h"
#include "trireme/ops/kernels/tasks.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::ops::HWY_NAMESPACE {

template <class T>
void combine_typed(const CombinedRows& c, std::int64_t begin, std::int64_t end) {
  const T* rows = static_cast<const T*>(c.rows);
  for (std::int64_t n = begin; n < end; ++n) {
    const std::int64_t first = n * c.choices;
    T* out = static_cast<T*>(c.out) + n * c.width;
    for (std::int64_t at = 0; at < c.width; at += kLanes) {
      const std::size_t count = part_of(c.width, at);
      Vec sum = hn::Zero(kF32Tag);
      for (std::int64_t j = first; j < first + c.choices; ++j) {
        if (c.places[j] == kNoRow) continue;
        const Vec row = load_part(rows + c.places[j] * c.width + at, count);
        sum = c.weights == nullptr ? hn::Add(sum, row) : hn::MulAdd(fill(c.weights[j]), row, sum);
      }
      store_part(sum, out + at, count);
    }
  }
}

void combine_range(const CombinedRows& c, std::int64_t begin, std::int64_t end) {
  c.element == Element::kF32 ? combine_typed<float>(c, begin, end)
                             : combine_typed<Bf16>(c, begin, end);
}

template <class T>
void spread_typed(const SpreadRows& s, std::int64_t begin, std::int64_t end) {
  for (std::int64_t p = begin; p < end; ++p) {
    const std::int64_t choice = s.choices[p];
    const T* from = static_cast<const T*>(s.from) + choice / s.choices_per_token * s.width;
    const T* row = static_cast<const T*>(s.rows) + p * s.width;
    T* out = static_cast<T*>(s.out) + p * s.width;
    const Vec weight = fill(s.weights[choice]);
    Vec dot = hn::Zero(kF32Tag);
    for (std::int64_t at = 0; at < s.width; at += kLanes) {
      const std::size_t count = part_of(s.width, at);
      const Vec value = load_part(from + at, count);
      dot = hn::MulAdd(value, load_part(row + at, count), dot);
      store_part(hn::Mul(weight, value), out + at, count);
    }
    s.dots[choice] = hn::GetLane(hn::SumOfLanes(kF32Tag, dot));
  }
}

void spread_range(const SpreadRows& s, std::int64_t begin, std::int64_t end) {
  s.element == Element::kF32 ? spread_typed<float>(s, begin, end)
                             : spread_typed<Bf16>(s, begin, end);
}

}  // namespace trireme::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::ops {
namespace {

HWY_EXPORT(combine_range);
HWY_EXPORT(spread_range);

// Rows of a task: 32 KiB of f32.
std::int64_t rows_of_task(std::int64_t width) {
  constexpr std::int64_t kTaskElements = 8192;
  return std::max<std::int64_t>(1, kTaskElements / std::max<std::int64_t>(1, width));
}

}  // namespace

void combine_rows(const CombinedRows& c) {
  const auto range = HWY_DYNAMIC_DISPATCH(combine_range);
  run_ranges(c.tokens, rows_of_task(c.width),
             [&](std::int64_t begin, std::int64_t end) { range(c, begin, end); });
}

void spread_rows(const SpreadRows& s) {
  const auto range = HWY_DYNAMIC_DISPATCH(spread_range);
  run_ranges(s.count, rows_of_task(s.width),
             [&](std::int64_t begin, std::int64_t end) { range(s, begin, end); });
}

}  // namespace trireme::ops
#endif

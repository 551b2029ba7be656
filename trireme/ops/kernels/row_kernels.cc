// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/row_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "trireme/ops/kernels/row_kernels.cc"
#include <hwy/foreach_target.h>
// After it:
#include <algorithm>
#include <cmath>
#include <limits>

#include "trireme/ops/kernels/simd-inl.h"
#include "trireme/ops/kernels/tasks.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::ops::HWY_NAMESPACE {

template <class T>
void rotate_typed(const Rotation& r, std::int64_t begin, std::int64_t end) {
  const std::int64_t half = r.head_width / 2;
  for (std::int64_t i = begin; i < end; ++i) {
    const float* cosines = r.cosines + i / r.heads % r.tokens * half;
    const float* sines = r.sines + i / r.heads % r.tokens * half;
    const T* x = static_cast<const T*>(r.x) + i * r.head_width;
    T* out = static_cast<T*>(r.out) + i * r.head_width;
    for (std::int64_t d = 0; d < half; d += kLanes) {
      const std::size_t count = part_of(half, d);
      const Vec first = load_part(x + d, count), second = load_part(x + half + d, count);
      const Vec cosine = load_part(cosines + d, count);
      const Vec given = load_part(sines + d, count);
      const Vec sine = r.inverse ? hn::Neg(given) : given;
      store_part(hn::NegMulAdd(second, sine, hn::Mul(first, cosine)), out + d, count);
      store_part(hn::MulAdd(first, sine, hn::Mul(second, cosine)), out + half + d, count);
    }
  }
}

// Heads [begin, end) of all rows.
void rotate_range(const Rotation& r, std::int64_t begin, std::int64_t end) {
  r.element == Element::kF32 ? rotate_typed<float>(r, begin, end)
                             : rotate_typed<Bf16>(r, begin, end);
}

template <class T>
void look_up_typed(const EmbeddingRows& e, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const bool exists = e.indices[r] != kNoRow;
    const T* row = static_cast<const T*>(e.table) + (exists ? e.indices[r] * e.width : 0);
    const T* position = e.positions == nullptr
                            ? nullptr
                            : static_cast<const T*>(e.positions) + r % e.tokens * e.width;
    T* out = static_cast<T*>(e.out) + r * e.width;
    for (std::int64_t c = 0; c < e.width; c += kLanes) {
      const std::size_t count = part_of(e.width, c);
      Vec value = exists ? load_part(row + c, count) : hn::Zero(kF32Tag);
      if (position != nullptr) value = hn::Add(value, load_part(position + c, count));
      store_part(value, out + c, count);
    }
  }
}

void look_up_range(const EmbeddingRows& e, std::int64_t begin, std::int64_t end) {
  e.element == Element::kF32 ? look_up_typed<float>(e, begin, end)
                             : look_up_typed<Bf16>(e, begin, end);
}

template <class T>
void add_groups_typed(const RowGroups& g, std::int64_t begin, std::int64_t end) {
  const T* from = static_cast<const T*>(g.from);
  for (std::int64_t group = begin; group < end; ++group) {
    float* to = g.to + g.targets[group] * g.width;
    for (std::int64_t c = 0; c < g.width; c += kLanes) {
      const std::size_t count = part_of(g.width, c);
      Vec sum = hn::Zero(kF32Tag);
      for (std::int64_t i = g.starts[group]; i < g.starts[group + 1]; ++i) {
        sum = hn::Add(sum, load_part(from + g.order[i] * g.width + c, count));
      }
      store_part(hn::Add(load_part(to + c, count), sum), to + c, count);
    }
  }
}

void add_groups_range(const RowGroups& g, std::int64_t begin, std::int64_t end) {
  g.element == Element::kF32 ? add_groups_typed<float>(g, begin, end)
                             : add_groups_typed<Bf16>(g, begin, end);
}

HWY_INLINE float largest(const float* row, std::int64_t columns) {
  Vec most = fill(-std::numeric_limits<float>::infinity());
  const auto whole =
      columns / static_cast<std::int64_t>(kLanes) * static_cast<std::int64_t>(kLanes);
  for (std::int64_t c = 0; c < whole; c += kLanes) most = hn::Max(most, load(row + c));
  float result = hn::GetLane(hn::MaxOfLanes(kF32Tag, most));
  for (std::int64_t c = whole; c < columns; ++c) result = std::max(result, row[c]);
  return result;
}

// row = exp(row - most); returns the sum: f32 over blocks of 1024 columns, f64 over the blocks.
HWY_INLINE double exponentials(float* row, std::int64_t columns, float most) {
  constexpr std::int64_t kBlock = 1024;
  double total = 0;
  for (std::int64_t block = 0; block < columns; block += kBlock) {
    const std::int64_t end = std::min(columns, block + kBlock);
    Vec sums = hn::Zero(kF32Tag);
    for (std::int64_t c = block; c < end; c += kLanes) {
      const std::size_t count = part_of(end, c);
      const Vec e = keep_first(exp(hn::Sub(load_part(row + c, count), fill(most))), count);
      store_part(e, row + c, count);
      sums = hn::Add(sums, e);
    }
    total += hn::GetLane(hn::SumOfLanes(kF32Tag, sums));
  }
  return total;
}

template <class T>
void scale_row(const float* row, std::int64_t columns, float factor, T* to) {
  for (std::int64_t c = 0; c < columns; c += kLanes) {
    const std::size_t count = part_of(columns, c);
    store_part(hn::Mul(load_part(row + c, count), fill(factor)), to + c, count);
  }
}

// One row of softmax and its gradient; row holds the logits.
template <class T>
void cross_entropy_row(const CrossEntropyRows& e, std::int64_t r) {
  float* row = e.logits + r * e.columns;
  T* gradient = e.gradient == nullptr ? nullptr : static_cast<T*>(e.gradient) + r * e.columns;
  const std::int64_t target = e.targets[r];
  if (target < 0) {
    e.losses[r] = 0;
    if (gradient != nullptr) std::fill_n(gradient, e.columns, T{});
    return;
  }
  const float most = largest(row, e.columns);
  const double logit = row[target];
  const double sum = exponentials(row, e.columns, most);
  e.losses[r] = std::log(sum) + most - logit;
  if (gradient == nullptr) return;
  const float probability = row[target] / static_cast<float>(sum);
  scale_row(row, e.columns, e.scale / static_cast<float>(sum), gradient);
  store_part(fill((probability - 1.0F) * e.scale), gradient + target, 1);
}

void cross_entropy_range(const CrossEntropyRows& e, std::int64_t begin, std::int64_t end) {
  const auto one =
      e.gradient_element == Element::kF32 ? cross_entropy_row<float> : cross_entropy_row<Bf16>;
  for (std::int64_t r = begin; r < end; ++r) one(e, r);
}

void sum_exponentials_range(const VocabularyRows& v, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    float* row = v.logits + r * v.columns;
    const std::int64_t column = v.targets[r] - v.first;
    v.target_logits[r] = v.targets[r] >= 0 && column >= 0 && column < v.columns ? row[column] : 0;
    v.most[r] = largest(row, v.columns);
    v.log_sums[r] = std::log(exponentials(row, v.columns, v.most[r])) + v.most[r];
  }
}

template <class T>
void softmax_gradient_row(const VocabularyRows& v, std::int64_t r, float scale, T* gradient) {
  const float* row = v.logits + r * v.columns;
  if (v.targets[r] < 0) {
    std::fill_n(gradient, v.columns, T{});
    return;
  }
  const std::int64_t column = v.targets[r] - v.first;
  const bool here = column >= 0 && column < v.columns;
  const float factor = static_cast<float>(std::exp(v.most[r] - v.log_sums[r]));
  const float probability = here ? row[column] * factor : 0;
  scale_row(row, v.columns, factor * scale, gradient);
  if (here) store_part(fill((probability - 1.0F) * scale), gradient + column, 1);
}

void softmax_gradient_range(const VocabularyRows& v, void* gradient, Element element, float scale,
                            std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const std::int64_t at = r * v.columns;
    element == Element::kF32 ? softmax_gradient_row(v, r, scale, static_cast<float*>(gradient) + at)
                             : softmax_gradient_row(v, r, scale, static_cast<Bf16*>(gradient) + at);
  }
}

template <class T>
void activate_typed(const Activation& a, std::int64_t begin, std::int64_t end) {
  const T* before = static_cast<const T*>(a.before);
  const T* factor = static_cast<const T*>(a.factor);
  T* out = static_cast<T*>(a.out);
  for (std::int64_t i = begin; i < end; i += kLanes) {
    const std::size_t count = part_of(end, i);
    const Vec x = load_part(before + i, count);
    store_part(factor == nullptr ? gelu(x) : hn::Mul(silu(x), load_part(factor + i, count)),
               out + i, count);
  }
}

void activate_range(const Activation& a, std::int64_t begin, std::int64_t end) {
  a.element == Element::kF32 ? activate_typed<float>(a, begin, end)
                             : activate_typed<Bf16>(a, begin, end);
}

}  // namespace trireme::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::ops {
namespace {

HWY_EXPORT(rotate_range);
HWY_EXPORT(look_up_range);
HWY_EXPORT(add_groups_range);
HWY_EXPORT(cross_entropy_range);
HWY_EXPORT(sum_exponentials_range);
HWY_EXPORT(softmax_gradient_range);
HWY_EXPORT(activate_range);

constexpr std::int64_t kTaskElements = 8192;  // of f32: 32 KiB

std::int64_t rows_of_task(std::int64_t width) {
  return std::max<std::int64_t>(1, kTaskElements / std::max<std::int64_t>(1, width));
}

}  // namespace

void rotate_heads(const Rotation& rotation) {
  const auto range = HWY_DYNAMIC_DISPATCH(rotate_range);
  run_ranges(rotation.rows * rotation.heads, rows_of_task(rotation.head_width),
             [&](std::int64_t begin, std::int64_t end) { range(rotation, begin, end); });
}

void look_up_rows(const EmbeddingRows& rows) {
  const auto range = HWY_DYNAMIC_DISPATCH(look_up_range);
  run_ranges(rows.rows, rows_of_task(rows.width),
             [&](std::int64_t begin, std::int64_t end) { range(rows, begin, end); });
}

void add_row_groups(const RowGroups& groups) {
  const auto range = HWY_DYNAMIC_DISPATCH(add_groups_range);
  run_ranges(groups.groups, rows_of_task(groups.width),
             [&](std::int64_t begin, std::int64_t end) { range(groups, begin, end); });
}

void cross_entropy_rows(const CrossEntropyRows& rows) {
  const auto range = HWY_DYNAMIC_DISPATCH(cross_entropy_range);
  run_ranges(rows.rows, rows_of_task(rows.columns),
             [&](std::int64_t begin, std::int64_t end) { range(rows, begin, end); });
}

void sum_exponentials(const VocabularyRows& rows) {
  const auto range = HWY_DYNAMIC_DISPATCH(sum_exponentials_range);
  run_ranges(rows.rows, rows_of_task(rows.columns),
             [&](std::int64_t begin, std::int64_t end) { range(rows, begin, end); });
}

void softmax_gradient(const VocabularyRows& rows, void* gradient, Element element, float scale) {
  const auto range = HWY_DYNAMIC_DISPATCH(softmax_gradient_range);
  run_ranges(rows.rows, rows_of_task(rows.columns), [&](std::int64_t begin, std::int64_t end) {
    range(rows, gradient, element, scale, begin, end);
  });
}

void activate(const Activation& activation) {
  const auto range = HWY_DYNAMIC_DISPATCH(activate_range);
  run_ranges(activation.count, kTaskElements,
             [&](std::int64_t begin, std::int64_t end) { range(activation, begin, end); });
}

}  // namespace trireme::ops
#endif

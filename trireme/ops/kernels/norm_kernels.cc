// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/kernels/norm_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "trireme/ops/kernels/norm_kernels.cc"
#include <hwy/foreach_target.h>
// After it:
#include <algorithm>
#include <cmath>
#include <cstring>

#include "trireme/ops/kernels/simd-inl.h"
#include "trireme/ops/kernels/tasks.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::ops::HWY_NAMESPACE {

// A row in f32, in this thread's memory, padded with zeros to whole vectors.
template <class T>
HWY_INLINE void widen(const T* from, std::int64_t width, float* to) {
  for (std::int64_t c = 0; c < width; c += kLanes) {
    store(load_part(from + c, part_of(width, c)), to + c);
  }
}

HWY_INLINE float sum_of(Vec sums) { return hn::GetLane(hn::SumOfLanes(kF32Tag, sums)); }

struct Moments {
  float mean;
  float inverse;
};

// Of a padded row. The second pass subtracts the mean before it squares: nothing cancels.
HWY_INLINE Moments moments_of(const float* row, std::int64_t width, float epsilon, bool centred) {
  const auto count = static_cast<float>(width);
  float mean = 0;
  if (centred) {
    Vec sums = hn::Zero(kF32Tag);
    for (std::int64_t c = 0; c < width; c += kLanes) sums = hn::Add(sums, load(row + c));
    mean = sum_of(sums) / count;
  }
  Vec squares = hn::Zero(kF32Tag);
  for (std::int64_t c = 0; c < width; c += kLanes) {
    const Vec d = keep_first(hn::Sub(load(row + c), fill(mean)), part_of(width, c));
    squares = hn::MulAdd(d, d, squares);
  }
  return {mean, 1.0F / std::sqrt(sum_of(squares) / count + epsilon)};
}

template <class T>
void forward_row(const NormForward& n, std::int64_t r, float* row) {
  const NormShape& s = n.shape;
  const auto* x = static_cast<const T*>(n.x) + r * s.width;
  const auto* weight = static_cast<const T*>(s.weight);
  const auto* bias = static_cast<const T*>(s.bias);
  auto* out = static_cast<T*>(n.out) + r * s.width;
  widen(x, s.width, row);
  if (n.addend != nullptr) {
    const auto* addend = static_cast<const T*>(n.addend) + r * s.width;
    auto* sum = static_cast<T*>(n.sum) + r * s.width;
    for (std::int64_t c = 0; c < s.width; c += kLanes) {
      const std::size_t count = part_of(s.width, c);
      const Vec value = rounded_to<T>(hn::Add(load(row + c), load_part(addend + c, count)));
      store_part(value, sum + c, count);
      store(value, row + c);
    }
  }
  const Moments m = moments_of(row, s.width, n.epsilon, s.mean != nullptr);
  if (s.mean != nullptr) s.mean[r] = m.mean;
  s.inverse[r] = m.inverse;
  for (std::int64_t c = 0; c < s.width; c += kLanes) {
    const std::size_t count = part_of(s.width, c);
    Vec y = hn::Mul(hn::Sub(load(row + c), fill(m.mean)), fill(m.inverse));
    if (s.mean == nullptr) y = rounded_to<T>(y);  // as the published RMS norms do
    y = hn::Mul(y, load_part(weight + c, count));
    if (bias != nullptr) y = hn::Add(y, load_part(bias + c, count));
    store_part(y, out + c, count);
  }
}

// With d = out_grad weight and y the normalised row: x_grad = inverse (d - mean(d) - y mean(d y)),
// without the mean(d) for RMS norm. Adds out_grad y and out_grad to the block's partial sums.
template <class T>
void backward_row(const NormBackward& n, std::int64_t r, float* row, float* weight_sums,
                  float* bias_sums) {
  const NormShape& s = n.shape;
  const auto* x = static_cast<const T*>(n.x) + r * s.width;
  const auto* weight = static_cast<const T*>(s.weight);
  const auto* out_grad = static_cast<const T*>(n.out_grad) + r * s.width;
  const auto* sum_grad =
      n.sum_grad == nullptr ? nullptr : static_cast<const T*>(n.sum_grad) + r * s.width;
  auto* x_grad = static_cast<T*>(n.x_grad) + r * s.width;
  const bool centred = s.mean != nullptr;
  const Vec mean = fill(centred ? s.mean[r] : 0.0F), inverse = fill(s.inverse[r]);
  Vec d_sums = hn::Zero(kF32Tag), dy_sums = hn::Zero(kF32Tag);
  for (std::int64_t c = 0; c < s.width; c += kLanes) {
    const std::size_t count = part_of(s.width, c);
    const Vec y = keep_first(hn::Mul(hn::Sub(load_part(x + c, count), mean), inverse), count);
    const Vec g = load_part(out_grad + c, count);
    const Vec d = hn::Mul(g, load_part(weight + c, count));
    d_sums = hn::Add(d_sums, d);
    dy_sums = hn::MulAdd(d, y, dy_sums);
    store(y, row + c);
    store(hn::MulAdd(g, centred ? y : rounded_to<T>(y), load(weight_sums + c)), weight_sums + c);
    store(hn::Add(g, load(bias_sums + c)), bias_sums + c);
  }
  const auto width = static_cast<float>(s.width);
  const Vec d_mean = fill(centred ? sum_of(d_sums) / width : 0.0F);
  const Vec dy_mean = fill(sum_of(dy_sums) / width);
  for (std::int64_t c = 0; c < s.width; c += kLanes) {
    const std::size_t count = part_of(s.width, c);
    const Vec d = hn::Mul(load_part(out_grad + c, count), load_part(weight + c, count));
    Vec g = hn::Mul(inverse, hn::NegMulAdd(load(row + c), dy_mean, hn::Sub(d, d_mean)));
    if (sum_grad != nullptr) g = hn::Add(g, load_part(sum_grad + c, count));
    store_part(g, x_grad + c, count);
  }
}

float* row_scratch(std::int64_t padded, std::int64_t rows) {
  return static_cast<float*>(
      thread_scratch(Scratch::kOther, static_cast<std::size_t>(rows * padded) * sizeof(float)));
}

void norm_rows_forward(const NormForward& n, std::int64_t begin, std::int64_t end) {
  float* row = row_scratch(padded_width(n.shape.width), 1);
  const auto one = n.shape.element == Element::kF32 ? forward_row<float> : forward_row<Bf16>;
  for (std::int64_t r = begin; r < end; ++r) one(n, r, row);
}

// One block of rows: its partial sums are written, not added.
void norm_block_backward(const NormBackward& n, std::int64_t block) {
  const std::int64_t width = n.shape.width, padded = padded_width(width);
  float* row = row_scratch(padded, 3);
  float* sums = row + padded;
  std::memset(sums, 0, static_cast<std::size_t>(2 * padded) * sizeof(float));
  const auto one = n.shape.element == Element::kF32 ? backward_row<float> : backward_row<Bf16>;
  const std::int64_t end = std::min(n.shape.rows, (block + 1) * kNormBlock);
  for (std::int64_t r = block * kNormBlock; r < end; ++r) one(n, r, row, sums, sums + padded);
  float* partials = n.partials + block * 2 * width;
  std::copy_n(sums, width, partials);
  std::copy_n(sums + padded, width, partials + width);
}

}  // namespace trireme::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace trireme::ops {
namespace {

HWY_EXPORT(norm_rows_forward);
HWY_EXPORT(norm_block_backward);

// Adds the sum of the blocks' sums, which lie 2 width apart, to total.
void add_partials(const float* partials, std::int64_t blocks, std::int64_t width, float* total) {
  constexpr std::int64_t kGrain = 256;
  run_ranges(width, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = begin; first < end; first += kGrain) {
      const std::int64_t count = std::min(kGrain, end - first);
      float sums[kGrain] = {};
      for (std::int64_t block = 0; block < blocks; ++block) {
        const float* part = partials + block * 2 * width + first;
        for (std::int64_t c = 0; c < count; ++c) sums[c] += part[c];
      }
      for (std::int64_t c = 0; c < count; ++c) total[first + c] += sums[c];
    }
  });
}

}  // namespace

void norm_forward(const NormForward& norm) {
  const auto rows = HWY_DYNAMIC_DISPATCH(norm_rows_forward);
  run_ranges(norm.shape.rows, kNormBlock,
             [&](std::int64_t begin, std::int64_t end) { rows(norm, begin, end); });
}

void norm_backward(const NormBackward& norm) {
  const auto one = HWY_DYNAMIC_DISPATCH(norm_block_backward);
  const std::int64_t blocks = norm_blocks(norm.shape.rows), width = norm.shape.width;
  run_tasks(blocks, [&](std::int64_t block) { one(norm, block); });
  add_partials(norm.partials, blocks, width, norm.weight_grad);
  if (norm.bias_grad != nullptr) add_partials(norm.partials + width, blocks, width, norm.bias_grad);
}

}  // namespace trireme::ops
#endif

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Packing and the register-blocked product, for all kernels that multiply: see simd-inl.h for how
// this is included.
//
// Left panels hold kTileRows rows, right panels kTileColumns columns, both in f32, zero where the
// matrix ends. A right panel is [depth][kTileColumns]. A left panel is [kTileRows][kPanelStride]
// when the matrix is stored by rows, and [depth][kTileRows] when by columns: each is a plain copy.
#if defined(TRIREME_OPS_KERNELS_MATRIX_KERNELS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef TRIREME_OPS_KERNELS_MATRIX_KERNELS_INL_H
#undef TRIREME_OPS_KERNELS_MATRIX_KERNELS_INL_H
#else
#define TRIREME_OPS_KERNELS_MATRIX_KERNELS_INL_H
#endif

#include <algorithm>
#include <cstring>

#include "trireme/ops/kernels/matrix_kernels.h"
#include "trireme/ops/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace trireme::ops::HWY_NAMESPACE {

using detail::kMaxDepth;

// As many sums as the registers hold beside the operands.
#if HWY_TARGET <= HWY_AVX3
inline constexpr int kTileRows = 12, kTileVectors = 2;
#elif HWY_TARGET == HWY_AVX2
inline constexpr int kTileRows = 6, kTileVectors = 2;
#else
inline constexpr int kTileRows = 6, kTileVectors = 4;
#endif
inline constexpr std::int64_t kTileColumns = kTileVectors * static_cast<std::int64_t>(kLanes);
// Not a power of two: twelve rows a multiple of 4 KiB apart would fall into one set of the cache.
inline constexpr std::int64_t kPanelStride = kMaxDepth + 16;

// Floats of a left panel; the last row of a panel by columns is stored as a whole vector.
inline constexpr std::int64_t kLeftPanel =
    kTileRows * kPanelStride + static_cast<std::int64_t>(kLanes);
// Elements of a row of memory that packing a panel by columns reads.
inline constexpr std::int64_t kLeftReach = (kTileRows + static_cast<std::int64_t>(kLanes) - 1) /
                                           static_cast<std::int64_t>(kLanes) *
                                           static_cast<std::int64_t>(kLanes);
inline constexpr std::int64_t kTileSize = kTileRows * kTileColumns;

// Floats of a right panel of that many steps, with a gap, so that panels do not lie a multiple of 4
// KiB apart.
HWY_INLINE std::int64_t right_panel(std::int64_t steps) { return steps * kTileColumns + 16; }

// A lane of a panel is one element of the inner dim, or two where bf16 goes to the dot product:
// what is called a step below. `depth` counts elements.
template <class T>
HWY_INLINE std::int64_t steps_of(std::int64_t depth) {
  return (depth + kPerLane<T> - 1) / kPerLane<T>;
}

// Copies count elements of a row, as lanes.
template <class T>
HWY_INLINE void copy_row(const T* from, std::int64_t count, float* to) {
  constexpr std::int64_t kWidth = static_cast<std::int64_t>(kLanes) * kPerLane<T>;
  std::int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth, to += kLanes) store(load(from + i), to);
  if (i < count) store_first(load_first(from + i, count - i), to, steps_of<T>(count - i));
}

// Lanes of neighbours across the inner dim: of one row of memory, or of two that are `stride`
// apart, the second one zero where the inner dim ends. count: lanes that may be read, kLanes or
// fewer.
template <class T>
HWY_INLINE Vec load_step(const T* from, std::int64_t, bool, std::size_t count) {
  return load_part(from, count);
}
HWY_INLINE Vec load_step(const Bf16Pair* from, std::int64_t stride, bool both, std::size_t count) {
  const hn::Repartition<std::uint32_t, F32> du32;
  const auto row = [&](const Bf16Pair* at) HWY_ATTR {
    return hn::BitCast(du32, load_part(reinterpret_cast<const Bf16*>(at), count));
  };
  const auto low = hn::ShiftRight<16>(row(from));
  return hn::BitCast(kF32Tag, both ? hn::Or(low, row(from + stride)) : low);
}

// rows <= kTileRows rows of a matrix stored by rows.
template <class T>
void pack_left_by_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t depth,
                       float* panel) {
  for (std::int64_t r = 0; r < rows; ++r) {
    copy_row(from + r * stride, depth, panel + r * kPanelStride);
  }
  for (std::int64_t r = rows; r < kTileRows; ++r) {
    std::memset(panel + r * kPanelStride, 0,
                static_cast<std::size_t>(steps_of<T>(depth)) * sizeof(float));
  }
}

// rows of a matrix stored by columns, into panels that lie kLeftPanel apart. A row of memory is
// read to its end before the next: rows may lie a multiple of 4 KiB apart, too few of which fit the
// cache. available: elements that may be read of each.
template <class T>
void pack_left_by_columns(const T* from, std::int64_t stride, std::int64_t rows,
                          std::int64_t available, std::int64_t depth, float* panels) {
  constexpr std::int64_t kWidth = kLanes;
  const std::int64_t whole = rows / kTileRows * kTileRows;
  for (std::int64_t k = 0; k < depth;
       k += kPerLane<T>, from += kPerLane<T> * stride, panels += kTileRows) {
    const bool both = k + 1 < depth;
    float* panel = panels;
    std::int64_t row = 0;
    // Lanes past the panel's row are overwritten by its next row.
    for (; row < whole && row + kLeftReach <= available; row += kTileRows, panel += kLeftPanel) {
      for (std::int64_t r = 0; r < kTileRows; r += kWidth) {
        store(load_step(from + row + r, stride, both, kLanes), panel + r);
      }
    }
    for (; row < rows; row += kTileRows, panel += kLeftPanel) {
      for (std::int64_t r = 0; r < kTileRows; r += kWidth) {
        const std::int64_t count =
            std::min(std::clamp<std::int64_t>(rows - row - r, 0, kWidth), kTileRows - r);
        store(load_step(from + row + r, stride, both, count), panel + r);
      }
    }
  }
}

// columns of a matrix stored by rows, into panels that lie right_panel(steps) apart.
template <class T>
void pack_right_by_rows(const T* from, std::int64_t stride, std::int64_t columns,
                        std::int64_t depth, float* panels) {
  const std::int64_t whole = columns / kTileColumns * kTileColumns;
  const std::int64_t panel_floats = right_panel(steps_of<T>(depth));
  for (std::int64_t k = 0; k < depth;
       k += kPerLane<T>, from += kPerLane<T> * stride, panels += kTileColumns) {
    const bool both = k + 1 < depth;
    float* panel = panels;
    for (std::int64_t c = 0; c < whole; c += kTileColumns, panel += panel_floats) {
      for (int v = 0; v < kTileVectors; ++v) {
        store(load_step(from + c + v * kLanes, stride, both, kLanes), panel + v * kLanes);
      }
    }
    for (std::int64_t c = whole; c < columns; c += kLanes) {
      store(load_step(from + c, stride, both, part_of(columns, c)), panel + (c - whole));
    }
    for (std::int64_t c = padded_width(columns - whole); whole < columns && c < kTileColumns;
         c += kLanes) {
      store(hn::Zero(kF32Tag), panel + c);
    }
  }
}

// Elements [begin, end) of a row, as lanes kTileColumns apart.
template <class T>
HWY_INLINE void copy_column(const T* from, std::int64_t begin, std::int64_t end, float* to) {
  constexpr std::int64_t kWidth = static_cast<std::int64_t>(kLanes) * kPerLane<T>;
  for (std::int64_t k = begin; k < end; k += kWidth) {
    const std::int64_t count = std::min(kWidth, end - k);
    HWY_ALIGN float part[kLanes];
    store(load_first(from + k, count), part);
    for (std::int64_t i = 0; i < steps_of<T>(count); ++i) {
      to[(k / kPerLane<T> + i) * kTileColumns] = part[i];
    }
  }
}

#if HWY_TARGET != HWY_SCALAR
// Four rows by kLanes: lane [r][k] to to[k * kTileColumns + r].
template <class T>
HWY_INLINE void transpose_four(const T* from, std::int64_t stride, float* to) {
  const Vec a = load(from), b = load(from + stride), c = load(from + 2 * stride),
            d = load(from + 3 * stride);
  const hn::Repartition<double, F32> d64;
  const auto pairs = [d64](Vec v) HWY_ATTR { return hn::BitCast(d64, v); };
  const auto ab_low = pairs(hn::InterleaveLower(kF32Tag, a, b));
  const auto ab_high = pairs(hn::InterleaveUpper(kF32Tag, a, b));
  const auto cd_low = pairs(hn::InterleaveLower(kF32Tag, c, d));
  const auto cd_high = pairs(hn::InterleaveUpper(kF32Tag, c, d));
  HWY_ALIGN float blocks[4][kLanes];  // [k % 4][k / 4][r]
  store(hn::BitCast(kF32Tag, hn::InterleaveLower(d64, ab_low, cd_low)), blocks[0]);
  store(hn::BitCast(kF32Tag, hn::InterleaveUpper(d64, ab_low, cd_low)), blocks[1]);
  store(hn::BitCast(kF32Tag, hn::InterleaveLower(d64, ab_high, cd_high)), blocks[2]);
  store(hn::BitCast(kF32Tag, hn::InterleaveUpper(d64, ab_high, cd_high)), blocks[3]);
  const hn::CappedTag<float, 4> four;
  for (std::size_t k = 0; k < kLanes; ++k) {
    hn::StoreU(hn::Load(four, blocks[k % 4] + k / 4 * 4), four, to + k * kTileColumns);
  }
}
#endif

// columns <= kTileColumns columns of a matrix stored by columns (a linear layer's weight [N, K],
// seen as [K, N]), into one panel.
template <class T>
void pack_right_by_columns(const T* from, std::int64_t stride, std::int64_t columns,
                           std::int64_t depth, float* panel) {
  if (columns < kTileColumns) {
    std::memset(panel, 0,
                static_cast<std::size_t>(steps_of<T>(depth) * kTileColumns) * sizeof(float));
  }
  std::int64_t c = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr std::int64_t kWidth = static_cast<std::int64_t>(kLanes) * kPerLane<T>;
  const std::int64_t whole = depth / kWidth * kWidth;
  for (; c + 4 <= columns; c += 4) {
    const T* rows = from + c * stride;
    for (std::int64_t k = 0; k < whole; k += kWidth) {
      transpose_four(rows + k, stride, panel + k / kPerLane<T> * kTileColumns + c);
    }
    for (std::int64_t r = 0; whole < depth && r < 4; ++r) {
      copy_column(rows + r * stride, whole, depth, panel + c + r);
    }
  }
#endif
  for (; c < columns; ++c) copy_column(from + c * stride, 0, depth, panel + c);
}

// sum + a b in every lane; of two bf16 in each, with kPairs.
template <bool kPairs>
HWY_INLINE Vec multiply_add(Vec a, Vec b, Vec sum) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  if constexpr (kPairs) {
    // Highway 1.0 does not know the instruction, and the compiler's own function needs it allowed
    // for all of this set of vector units.
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
#endif
  return hn::MulAdd(a, b, sum);
}

// tile [kTileRows][kTileColumns] = (first ? 0 : tile) + left x right, for the first kRows rows.
template <int kRows, bool kByRows, bool kPairs>
HWY_NOINLINE void multiply_panels(std::int64_t steps, const float* HWY_RESTRICT left,
                                  const float* HWY_RESTRICT right, float* HWY_RESTRICT tile,
                                  bool first) {
  constexpr std::int64_t kRowStep = kByRows ? kPanelStride : 1;
  constexpr std::int64_t kStep = kByRows ? 1 : kTileRows;
  Vec sums[kRows][kTileVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) {
      sums[r][v] =
          first ? hn::Zero(kF32Tag) : hn::Load(kF32Tag, tile + r * kTileColumns + v * kLanes);
    }
  }
  for (std::int64_t k = 0; k < steps; ++k, left += kStep, right += kTileColumns) {
    Vec row[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) row[v] = hn::Load(kF32Tag, right + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec value = fill(left[r * kRowStep]);
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) {
        sums[r][v] = multiply_add<kPairs>(value, row[v], sums[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) {
      hn::Store(sums[r][v], kF32Tag, tile + r * kTileColumns + v * kLanes);
    }
  }
}

// The same for as many rows as the panel holds; rows beyond, up to the next third of a tile, are
// zero.
template <bool kByRows, bool kPairs = false>
HWY_INLINE void multiply_rows(std::int64_t rows, std::int64_t steps, const float* left,
                              const float* right, float* tile, bool first) {
  constexpr int kThird = kTileRows / 3;
  if (rows > 2 * kThird) {
    multiply_panels<kTileRows, kByRows, kPairs>(steps, left, right, tile, first);
  } else if (rows > kThird) {
    multiply_panels<2 * kThird, kByRows, kPairs>(steps, left, right, tile, first);
  } else {
    multiply_panels<kThird, kByRows, kPairs>(steps, left, right, tile, first);
  }
}

}  // namespace trireme::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

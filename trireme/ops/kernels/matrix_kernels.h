// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The part of a matrix product that is compiled for each set of vector units.
#pragma once

#include <cstdint>

#include "trireme/ops/kernels/matrix_product.h"

namespace trireme::ops::detail {

// Rows x columns that the innermost loop keeps in registers.
struct TileShape {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

// Rows [row_begin, row_end) and columns [column_begin, column_end) of a product: what one task
// computes. Inside it the inner dim is cut into `depth` and the rows into `rows` (a multiple of the
// tile's), so that what is packed stays in the second-level cache.
struct ProductTask {
  MatrixView left;
  MatrixView right;
  Epilogue epilogue;
  std::int64_t row_begin = 0, row_end = 0;
  std::int64_t column_begin = 0, column_end = 0;
  std::int64_t depth = 0;  // even, where it is less than the whole inner dim
  std::int64_t rows = 0;
  bool pairs = false;  // both are bf16 and go to the processor's bf16 dot product
};

// The largest ProductTask::depth.
inline constexpr std::int64_t kMaxDepth = 256;

// The same for a thin product (matrix_product.h), all of its rows; depth, rows and pairs are not
// read.
void run_thin_task(const ProductTask& task);

TileShape tile_shape();
// Whether the vector units that kernels run on now have a bf16 dot product: AVX-512 on a processor
// with AVX512_BF16.
bool has_bf16_dot();
// Time of that dot product of two pairs a lane over that of an f32 multiply-add, measured now in
// about a millisecond. Call it only where has_bf16_dot().
double bf16_dot_seconds_per_f32();
// For tests: what bf16_dot_in_use() says from now on, where there is one. Measured until it is
// called.
enum class Bf16Dot : std::uint8_t { kMeasured, kNever, kAlways };
void set_bf16_dot(Bf16Dot use);
void run_product_task(const ProductTask& task);
void add_column_sums_of(const MatrixView& values, std::int64_t begin, std::int64_t end,
                        float* sums);

}  // namespace trireme::ops::detail

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/codec/matrix_kernels.h"

#include <algorithm>
#include <cstring>

#include "trireme/comm/codec/vector_clones.h"

namespace trireme::detail {
namespace {

// A dot product is 16 sums, of every sixteenth product, added in pairs at the end. 16 floats are
// the widest vector register; narrower ones take several.
constexpr std::int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

// Columns of the transposed product that stay in the first cache level while all rows pass.
constexpr std::int64_t kColumns = 512;

TRIREME_INLINE void load(Lanes& lanes, const float* from, std::int64_t n) {
  lanes = Lanes{};
  std::memcpy(&lanes, from, static_cast<std::size_t>(n) * sizeof(float));
}

TRIREME_INLINE float total(const Lanes& lanes) {
  float sum[kLanes];
  std::memcpy(sum, &lanes, sizeof(sum));
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::int64_t i = 0; i < width; ++i) sum[i] += sum[i + width];
  }
  return sum[0];
}

// kCount dot products of a with b, b + stride, ...; a is loaded once.
template <int kCount>
TRIREME_INLINE void dots(const float* a, const float* b, std::int64_t stride, std::int64_t n,
                         float* out, std::int64_t out_stride) {
  Lanes sums[kCount] = {};
  Lanes x;
  Lanes y;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    load(x, a + i, kLanes);
    for (int j = 0; j < kCount; ++j) {
      load(y, b + j * stride + i, kLanes);
      sums[j] += x * y;
    }
  }
  if (i < n) {
    load(x, a + i, n - i);
    for (int j = 0; j < kCount; ++j) {
      load(y, b + j * stride + i, n - i);
      sums[j] += x * y;
    }
  }
  for (int j = 0; j < kCount; ++j) out[j * out_stride] = total(sums[j]);
}

TRIREME_VECTOR_CLONES void multiply_rows(const float* matrix, std::int64_t count, std::int64_t rows,
                                         std::int64_t cols, const float* q, int components,
                                         float* out) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* values = matrix + row * cols;
    const std::int64_t n = std::min(cols, count - row * cols);
    int j = 0;
    for (; j + 4 <= components; j += 4) {
      dots<4>(values, q + j * cols, cols, n, out + j * rows + row, rows);
    }
    for (; j < components; ++j) dots<1>(values, q + j * cols, cols, n, out + j * rows + row, rows);
  }
}

TRIREME_VECTOR_CLONES void add_scaled_all(float factor, const float* __restrict x,
                                          float* __restrict y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

TRIREME_VECTOR_CLONES void multiply_columns(const float* matrix, std::int64_t count,
                                            std::int64_t rows, std::int64_t cols, const float* p,
                                            int components, float* out) {
  for (std::int64_t col = 0; col < cols; col += kColumns) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t at = row * cols + col;
      const std::int64_t n = std::min({kColumns, cols - col, count - at});
      if (n <= 0) break;
      const float* __restrict x = matrix + at;
      for (int j = 0; j < components; ++j) {
        const float factor = p[j * rows + row];
        float* __restrict y = out + j * cols + col;
        for (std::int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
      }
    }
  }
}

// At most kColumns elements of one row of p times transposed q, into a local array, so that the
// loops vectorise although what is written may lie where something else is read.
TRIREME_INLINE void outer_piece(const float* p, std::int64_t rows, const float* q,
                                std::int64_t cols, int components, std::int64_t n,
                                float* __restrict sum) {
  for (std::int64_t i = 0; i < n; ++i) sum[i] = p[0] * q[i];
  for (int j = 1; j < components; ++j) {
    const float factor = p[j * rows];
    const float* __restrict x = q + j * cols;
    for (std::int64_t i = 0; i < n; ++i) sum[i] += factor * x[i];
  }
}

// out = p times transposed q, or values less that where there are values.
TRIREME_VECTOR_CLONES void multiply_out(const float* p, const float* q, int components,
                                        std::int64_t rows, std::int64_t cols, std::int64_t count,
                                        const float* values, float* out) {
  alignas(64) float sum[kColumns];
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; col += kColumns) {
      const std::int64_t at = row * cols + col;
      const std::int64_t n = std::min({kColumns, cols - col, count - at});
      if (n <= 0) break;
      outer_piece(p + row, rows, q + col, cols, components, n, sum);
      if (values != nullptr) {
        for (std::int64_t i = 0; i < n; ++i) sum[i] = values[at + i] - sum[i];
      }
      std::memcpy(out + at, sum, static_cast<std::size_t>(n) * sizeof(float));
    }
  }
}

}  // namespace

void multiply(const MatrixShape& shape, std::span<const float> matrix, std::span<const float> q,
              int components, std::span<float> out) {
  multiply_rows(matrix.data(), shape.count, shape.rows, shape.cols, q.data(), components,
                out.data());
}

void multiply_transposed(const MatrixShape& shape, std::span<const float> matrix,
                         std::span<const float> p, int components, std::span<float> out) {
  std::fill(out.begin(), out.end(), 0.0F);
  multiply_columns(matrix.data(), shape.count, shape.rows, shape.cols, p.data(), components,
                   out.data());
}

void multiply_outer(const MatrixShape& shape, std::span<const float> p, std::span<const float> q,
                    int components, std::span<float> matrix) {
  multiply_out(p.data(), q.data(), components, shape.rows, shape.cols, shape.count, nullptr,
               matrix.data());
}

void subtract_outer(const MatrixShape& shape, std::span<const float> matrix,
                    std::span<const float> p, std::span<const float> q, int components,
                    std::span<float> rest) {
  multiply_out(p.data(), q.data(), components, shape.rows, shape.cols, shape.count, matrix.data(),
               rest.data());
}

float dot(std::span<const float> a, std::span<const float> b) {
  float sum = 0;
  dots<1>(a.data(), b.data(), 0, static_cast<std::int64_t>(a.size()), &sum, 0);
  return sum;
}

void add_scaled(float factor, std::span<const float> x, std::span<float> y) {
  add_scaled_all(factor, x.data(), y.data(), static_cast<std::int64_t>(x.size()));
}

}  // namespace trireme::detail

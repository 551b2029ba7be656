// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What follows a product (matrix_product.h), as a pass of its own: a thread per vector. And sums of
// columns: step one here, step two in partial_sums-inl.cuh.

#include "trireme/ops/cuda/activations-inl.cuh"
#include "trireme/ops/cuda/device-inl.cuh"
#include "trireme/ops/cuda/kernels.h"
#include "trireme/ops/cuda/partial_sums-inl.cuh"

namespace trireme::ops::cuda {
namespace {

using namespace detail;
using Kind = Epilogue::Kind;

// A vector of the product p, and where the epilogue's matrices hold its elements.
template <class T, int kWidth>
struct Finish {
  const Epilogue& e;
  std::int64_t at;
  float (&p)[kWidth];

  __device__ void store_out() const { store<kWidth>(p, static_cast<T*>(e.out) + at); }
  __device__ void store_second() const { store<kWidth>(p, static_cast<T*>(e.second_out) + at); }
  __device__ void read(const void* from, float (&to)[kWidth]) const {
    load<kWidth>(static_cast<const T*>(from) + at, to);
  }
  __device__ void add_bias(std::int64_t column) const {
    if (e.bias == nullptr) return;
    float bias[kWidth];
    load<kWidth>(static_cast<const T*>(e.bias) + column, bias);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) p[i] += bias[i];
  }
  __device__ void add_out() const {
    float before[kWidth];
    read(e.out, before);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) p[i] += before[i];
  }
  __device__ void gelu_of_stored() const {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) p[i] = gelu(rounded_to<T>(p[i]));
  }
  __device__ void times_gelu_derivative() const {
    float before[kWidth];
    read(e.first_in, before);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) p[i] *= gelu_derivative(before[i]);
  }
  __device__ void stored_times_silu() const {
    float gate[kWidth];
    read(e.first_in, gate);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) p[i] = __fmul_rn(silu(gate[i]), rounded_to<T>(p[i]));
  }
  __device__ void swiglu_gradients() const {
    float gate[kWidth], up[kWidth], up_grad[kWidth];
    read(e.first_in, gate);
    read(e.second_in, up);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      up_grad[i] = p[i] * silu(gate[i]);
      p[i] = p[i] * up[i] * silu_derivative(gate[i]);
    }
    store_out();
    store<kWidth>(up_grad, static_cast<T*>(e.second_out) + at);
  }
};

template <class T, int kWidth, Kind kKind>
__device__ void finish(const Finish<T, kWidth>& f, std::int64_t column) {
  if constexpr (kKind == Kind::kStore || kKind == Kind::kGelu) f.add_bias(column);
  if constexpr (kKind == Kind::kAdd) f.add_out();
  if constexpr (kKind == Kind::kGelu || kKind == Kind::kSwiglu) f.store_second();
  if constexpr (kKind == Kind::kGelu) f.gelu_of_stored();
  if constexpr (kKind == Kind::kGeluGradient) f.times_gelu_derivative();
  if constexpr (kKind == Kind::kSwiglu) f.stored_times_silu();
  if constexpr (kKind == Kind::kSwigluGradient) {
    f.swiglu_gradients();
  } else {
    f.store_out();
  }
}

template <class Product, class T, int kWidth, Kind kKind>
__global__ void __launch_bounds__(kFlatThreads) finish_all(EpiloguePass pass) {
  const std::int64_t vectors = pass.columns / kWidth;
  for_each_vector<1>(pass.rows * vectors, [&](auto /*width*/, std::int64_t v) {
    const std::int64_t row = v / vectors, column = v % vectors * kWidth;
    float p[kWidth];
    load<kWidth>(static_cast<const Product*>(pass.product) + v * kWidth, p);
    const std::int64_t at = row * pass.epilogue.stride + column;
    finish<T, kWidth, kKind>(Finish<T, kWidth>{pass.epilogue, at, p}, column);
  });
}

using Kernel = void (*)(EpiloguePass);

template <class Product, class T, int kWidth>
Kernel kernel_of(Kind kind) {
  switch (kind) {
    case Kind::kStore:
      return finish_all<Product, T, kWidth, Kind::kStore>;
    case Kind::kAdd:
      return finish_all<Product, T, kWidth, Kind::kAdd>;
    case Kind::kGelu:
      return finish_all<Product, T, kWidth, Kind::kGelu>;
    case Kind::kGeluGradient:
      return finish_all<Product, T, kWidth, Kind::kGeluGradient>;
    case Kind::kSwiglu:
      return finish_all<Product, T, kWidth, Kind::kSwiglu>;
    case Kind::kSwigluGradient:
      return finish_all<Product, T, kWidth, Kind::kSwigluGradient>;
  }
  return nullptr;
}

// Vectors hold as many elements in all matrices: 16 bytes of the wider type.
template <class Product, class T>
void apply(const EpiloguePass& pass, Stream stream) {
  constexpr int kWidth = kVector<Product> < kVector<T> ? kVector<Product> : kVector<T>;
  const Epilogue& e = pass.epilogue;
  const bool vectors = pass.columns % kWidth == 0 && e.stride % kWidth == 0 &&
                       align(pass.product, e.out, e.second_out, e.first_in, e.second_in, e.bias);
  launch("apply_epilogue",
         vectors ? kernel_of<Product, T, kWidth>(e.kind) : kernel_of<Product, T, 1>(e.kind),
         flat_grid(pass.rows * pass.columns, vectors ? kWidth : 1), stream, pass);
}

template <class Product>
void apply_to(const EpiloguePass& pass, Stream stream) {
  pass.epilogue.element == Element::kF32 ? apply<Product, float>(pass, stream)
                                         : apply<Product, Bf16>(pass, stream);
}

// A block takes kColumnSumRows rows of kWarp vectors of columns; its warps take every kStrips-th
// row.
template <class T, int kWidth>
__global__ void __launch_bounds__(kStripThreads)
    sum_blocks_of_rows(MatrixView values, float* partials) {
  constexpr int kColumns = kWarp * kWidth;
  __shared__ float strips[kStrips][kColumns];
  const int lane = threadIdx.x % kWarp, strip = threadIdx.x / kWarp;
  const std::int64_t tiles = div_up(values.columns, kColumns);
  const std::int64_t blocks = div_up(values.rows, kColumnSumRows);
  for (std::int64_t tile = blockIdx.x; tile < blocks * tiles; tile += gridDim.x) {
    const std::int64_t block = tile / tiles, begin = tile % tiles * kColumns;
    const std::int64_t first = block * kColumnSumRows, c = begin + lane * kWidth;
    const std::int64_t end =
        first + kColumnSumRows < values.rows ? first + kColumnSumRows : values.rows;
    float sums[kWidth] = {};
    if (c < values.columns) {
      const T* from = static_cast<const T*>(values.data) + c;
#pragma unroll 4
      for (std::int64_t r = first + strip; r < end; r += kStrips) {
        float row[kWidth];
        load<kWidth>(from + r * values.row_stride, row);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sums[i] += row[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) strips[strip][lane * kWidth + i] = sums[i];
    __syncthreads();
    for (int i = threadIdx.x; i < kColumns && begin + i < values.columns; i += kStripThreads) {
      float sum = strips[0][i];
      for (int other = 1; other < kStrips; ++other) sum += strips[other][i];
      partials[block * values.columns + begin + i] = sum;
    }
    __syncthreads();
  }
}

template <class T>
void sum_blocks(const MatrixView& values, float* partials, Stream stream) {
  const bool vectors =
      rows_align<T>(values.columns, values.data) && values.row_stride % kVector<T> == 0;
  const std::int64_t tiles = div_up(values.columns, kWarp * (vectors ? kVector<T> : 1));
  launch("add_column_sums", vectors ? sum_blocks_of_rows<T, kVector<T>> : sum_blocks_of_rows<T, 1>,
         {div_up(values.rows, kColumnSumRows) * tiles, kStripThreads}, stream, values, partials);
}

template <int kWidth>
__global__ void __launch_bounds__(kFlatThreads)
    add_and_clear_all(float* to, float* from, std::int64_t count) {
  for_each_vector<kWidth>(count, [&](auto width, std::int64_t at) {
    constexpr int kCount = decltype(width)::value;
    float sum[kCount], more[kCount];
    const float zeros[kCount] = {};
    load<kCount>(to + at, sum);
    load<kCount>(from + at, more);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum[i] += more[i];
    store<kCount>(sum, to + at);
    store<kCount>(zeros, from + at);
  });
}

}  // namespace

void apply_epilogue(const EpiloguePass& pass, Stream stream) {
  pass.product_element == Element::kF32 ? apply_to<float>(pass, stream)
                                        : apply_to<Bf16>(pass, stream);
}

void add_column_sums(const MatrixView& values, float* sums, float* partials, Stream stream) {
  values.element == Element::kF32 ? sum_blocks<float>(values, partials, stream)
                                  : sum_blocks<Bf16>(values, partials, stream);
  launch_partial_sums(
      "add_column_sums",
      {partials, div_up(values.rows, kColumnSumRows), values.columns, values.columns, sums},
      stream);
}

void add_and_clear(float* to, float* from, std::int64_t count, Stream stream) {
  constexpr int kWidth = kVector<float>;
  const bool vectors = align(to, from);
  launch("add_and_clear", vectors ? add_and_clear_all<kWidth> : add_and_clear_all<1>,
         flat_grid(count, vectors ? kWidth : 1), stream, to, from, count);
}

}  // namespace trireme::ops::cuda

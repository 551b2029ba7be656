// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rotation of heads, rows of embeddings, activations: a thread per vector. They wait for memory
// alone; the integer divisions that find a vector's row take the 32-bit path of the compiler.

#include "trireme/ops/cuda/activations-inl.cuh"
#include "trireme/ops/cuda/device-inl.cuh"
#include "trireme/ops/cuda/kernels.h"

namespace trireme::ops::cuda {
namespace {

using namespace detail;

// One vector of the first half of a head and its partner in the second half.
template <class T, int kWidth>
__device__ void rotate_pair(const Rotation& r, std::int64_t head, std::int64_t d) {
  const std::int64_t half = r.head_width / 2;
  const std::int64_t at = head * r.head_width + d;
  const std::int64_t angle = head / r.heads % r.tokens * half + d;
  const T* x = static_cast<const T*>(r.x) + at;
  T* out = static_cast<T*>(r.out) + at;
  float first[kWidth], second[kWidth], cosine[kWidth], sine[kWidth];
  load<kWidth>(x, first);
  load<kWidth>(x + half, second);
  load<kWidth>(r.cosines + angle, cosine);
  load<kWidth>(r.sines + angle, sine);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const float a = first[i], b = second[i], s = r.inverse ? -sine[i] : sine[i];
    first[i] = fmaf(-b, s, __fmul_rn(a, cosine[i]));
    second[i] = fmaf(a, s, __fmul_rn(b, cosine[i]));
  }
  store<kWidth>(first, out);
  store<kWidth>(second, out + half);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kFlatThreads) rotate_all(Rotation r) {
  const std::int64_t vectors = r.head_width / 2 / kWidth;
  for_each_vector<1>(r.rows * r.heads * vectors, [&](auto /*width*/, std::int64_t v) {
    rotate_pair<T, kWidth>(r, v / vectors, v % vectors * kWidth);
  });
}

template <class T>
void rotate(const Rotation& r, Stream stream) {
  const std::int64_t half = r.head_width / 2;
  const bool vectors = rows_align<T>(half, r.x, r.out, r.cosines, r.sines);
  launch("rotate_heads", vectors ? rotate_all<T, kVector<T>> : rotate_all<T, 1>,
         flat_grid(r.rows * r.heads * half, vectors ? kVector<T> : 1), stream, r);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kFlatThreads) look_up_all(EmbeddingRows e) {
  const std::int64_t vectors = e.width / kWidth;
  for_each_vector<1>(e.rows * vectors, [&](auto /*width*/, std::int64_t v) {
    const std::int64_t r = v / vectors, c = v % vectors * kWidth;
    float value[kWidth] = {};
    if (e.indices[r] != kNoRow) {
      load<kWidth>(static_cast<const T*>(e.table) + e.indices[r] * e.width + c, value);
    }
    if (e.positions != nullptr) {
      float position[kWidth];
      load<kWidth>(static_cast<const T*>(e.positions) + r % e.tokens * e.width + c, position);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) value[i] += position[i];
    }
    store<kWidth>(value, static_cast<T*>(e.out) + r * e.width + c);
  });
}

template <class T>
void look_up(const EmbeddingRows& e, Stream stream) {
  const bool vectors = rows_align<T>(e.width, e.table, e.positions, e.out);
  launch("look_up_rows", vectors ? look_up_all<T, kVector<T>> : look_up_all<T, 1>,
         flat_grid(e.rows * e.width, vectors ? kVector<T> : 1), stream, e);
}

// A warp's worth of vectors of a group's columns in each block, which adds the group's rows in
// their order: the bits of the CPU.
template <class T, int kWidth>
__global__ void __launch_bounds__(kFlatThreads) add_groups(RowGroups g) {
  const std::int64_t columns = std::int64_t{blockDim.x} * kWidth;
  const std::int64_t tiles = div_up(g.width, columns);
  for (std::int64_t tile = blockIdx.x; tile < g.groups * tiles; tile += gridDim.x) {
    const std::int64_t group = tile / tiles;
    const std::int64_t c = tile % tiles * columns + threadIdx.x * kWidth;
    const std::int64_t begin = g.starts[group], end = g.starts[group + 1];
    if (c >= g.width || begin == end) continue;
    const T* from = static_cast<const T*>(g.from) + c;
    float sum[kWidth] = {};
#pragma unroll 4
    for (std::int64_t i = begin; i < end; ++i) {
      float row[kWidth];
      load<kWidth>(from + g.order[i] * g.width, row);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += row[k];
    }
    float* to = g.to + g.targets[group] * g.width + c;
    float total[kWidth];
    load<kWidth>(to, total);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) total[k] += sum[k];
    store<kWidth>(total, to);
  }
}

template <class T>
void add_row_groups_of(const RowGroups& g, Stream stream) {
  const bool vectors = rows_align<T>(g.width, g.from, g.to);
  const int width = vectors ? kVector<T> : 1;
  const std::int64_t warps = div_up(div_up(g.width, width), kWarp);
  const int threads = static_cast<int>(warps * kWarp < kFlatThreads ? warps * kWarp : kFlatThreads);
  launch("add_row_groups", vectors ? add_groups<T, kVector<T>> : add_groups<T, 1>,
         {g.groups * div_up(g.width, std::int64_t{threads} * width), threads}, stream, g);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kFlatThreads) activate_all(Activation a) {
  for_each_vector<kWidth>(a.count, [&](auto width, std::int64_t at) {
    constexpr int kCount = decltype(width)::value;
    float value[kCount], factor[kCount];
    load<kCount>(static_cast<const T*>(a.before) + at, value);
    if (a.factor != nullptr) load<kCount>(static_cast<const T*>(a.factor) + at, factor);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      value[i] = a.factor == nullptr ? gelu(value[i]) : __fmul_rn(silu(value[i]), factor[i]);
    }
    store<kCount>(value, static_cast<T*>(a.out) + at);
  });
}

template <class T>
void activate_of(const Activation& a, Stream stream) {
  const bool vectors = align(a.before, a.factor, a.out);
  launch("activate", vectors ? activate_all<T, kVector<T>> : activate_all<T, 1>,
         flat_grid(a.count, vectors ? kVector<T> : 1), stream, a);
}

}  // namespace

void rotate_heads(const Rotation& rotation, Stream stream) {
  rotation.element == Element::kF32 ? rotate<float>(rotation, stream)
                                    : rotate<Bf16>(rotation, stream);
}

void look_up_rows(const EmbeddingRows& rows, Stream stream) {
  rows.element == Element::kF32 ? look_up<float>(rows, stream) : look_up<Bf16>(rows, stream);
}

void add_row_groups(const RowGroups& groups, Stream stream) {
  if (groups.groups == 0 || groups.width == 0) return;
  groups.element == Element::kF32 ? add_row_groups_of<float>(groups, stream)
                                  : add_row_groups_of<Bf16>(groups, stream);
}

void activate(const Activation& activation, Stream stream) {
  activation.element == Element::kF32 ? activate_of<float>(activation, stream)
                                      : activate_of<Bf16>(activation, stream);
}

}  // namespace trireme::ops::cuda

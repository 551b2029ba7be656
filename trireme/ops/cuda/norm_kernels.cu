// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Layer norm and RMS norm. Forward: a block per row, which its threads hold in registers, so that
// memory is read once; rows beyond a block's span are read again in the second and third pass.
// Backward: a block per kNormBlock rows; short rows several at once, each by a group of threads.
// Each thread keeps its columns' sums for the parameters' gradients in registers; the groups' sums
// are added in order and written once.

#include "trireme/ops/cuda/device-inl.cuh"
#include "trireme/ops/cuda/kernels.h"
#include "trireme/ops/cuda/partial_sums-inl.cuh"

namespace trireme::ops::cuda {
namespace {

using namespace detail;

constexpr int kMostThreads = 1024;

// x + addend, which is stored.
template <class T, int kWidth>
__device__ void add_share(const NormForward& n, std::int64_t row, std::int64_t begin,
                          float (&share)[kShare]) {
  float other[kShare];
  load_share<kWidth>(static_cast<const T*>(n.addend) + row, begin, n.shape.width, 0, other);
#pragma unroll
  for (int i = 0; i < kShare; ++i) share[i] = rounded_to<T>(share[i] + other[i]);
  store_share<kWidth>(share, begin, n.shape.width, static_cast<T*>(n.sum) + row);
}

template <class T, int kWidth>
__device__ void normalise_share(const NormForward& n, std::int64_t row, std::int64_t begin,
                                float mean, float inverse, float (&share)[kShare]) {
  const NormShape& s = n.shape;
  float factor[kShare], offset[kShare] = {};
  load_share<kWidth>(static_cast<const T*>(s.weight), begin, s.width, 0, factor);
  if (s.bias != nullptr) {
    load_share<kWidth>(static_cast<const T*>(s.bias), begin, s.width, 0, offset);
  }
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    float y = (share[i] - mean) * inverse;
    if (s.mean == nullptr) y = rounded_to<T>(y);  // as the published RMS norms do
    share[i] = fmaf(y, factor[i], offset[i]);
  }
  store_share<kWidth>(share, begin, s.width, static_cast<T*>(n.out) + row);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kMostThreads) forward_rows(NormForward n) {
  const NormShape& s = n.shape;
  const std::int64_t span = row_span();
  const auto count = static_cast<float>(s.width);
  for (std::int64_t r = blockIdx.x; r < s.rows; r += gridDim.x) {
    const std::int64_t row = r * s.width;
    const T* x = static_cast<const T*>(n.x) + row;
    float share[kShare];
    float mean = 0;
    for (std::int64_t begin = 0; begin < s.width; begin += span) {
      load_share<kWidth>(x, begin, s.width, 0, share);
      if (n.addend != nullptr) add_share<T, kWidth>(n, row, begin, share);
#pragma unroll
      for (int i = 0; i < kShare; ++i) mean += share[i];
    }
    mean = s.mean == nullptr ? 0.0F : group_sum(mean) / count;
    // What this thread itself stored, or x.
    const T* again = n.addend != nullptr ? static_cast<const T*>(n.sum) + row : x;
    float squares = 0;
    for (std::int64_t begin = 0; begin < s.width; begin += span) {
      if (span < s.width) load_share<kWidth>(again, begin, s.width, 0, share);
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        const float d = share_column<kWidth>(begin, i) < s.width ? share[i] - mean : 0.0F;
        squares = fmaf(d, d, squares);
      }
    }
    const float inverse = 1.0F / sqrtf(group_sum(squares) / count + n.epsilon);
    if (threadIdx.x == 0) {
      if (s.mean != nullptr) s.mean[r] = mean;
      s.inverse[r] = inverse;
    }
    for (std::int64_t begin = 0; begin < s.width; begin += span) {
      if (span < s.width) load_share<kWidth>(again, begin, s.width, 0, share);
      normalise_share<T, kWidth>(n, row, begin, mean, inverse, share);
    }
  }
}

// With d = out_grad weight and y the normalised row: x_grad = inverse (d - mean(d) - y mean(d y)),
// without the mean(d) for RMS norm.
struct Gradients {
  float y[kShare], d[kShare], out_grad[kShare];
};
template <class T, int kWidth>
__device__ void load_gradients(const NormBackward& n, std::int64_t r, std::int64_t begin,
                               Gradients& g) {
  const NormShape& s = n.shape;
  const float mean = s.mean == nullptr ? 0.0F : s.mean[r], inverse = s.inverse[r];
  const std::int64_t row = r * s.width;
  load_share<kWidth>(static_cast<const T*>(n.x) + row, begin, s.width, 0, g.y);
  load_share<kWidth>(static_cast<const T*>(n.out_grad) + row, begin, s.width, 0, g.out_grad);
  load_share<kWidth>(static_cast<const T*>(s.weight), begin, s.width, 0, g.d);
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    g.y[i] = (g.y[i] - mean) * inverse;
    g.d[i] = g.out_grad[i] * g.d[i];
  }
}

// Of d and d y, to be means over the row.
__device__ void add_products(const Gradients& g, float (&sums)[2]) {
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    sums[0] += g.d[i];
    sums[1] = fmaf(g.d[i], g.y[i], sums[1]);
  }
}

template <class T, int kWidth>
__device__ void store_gradient(const NormBackward& n, std::int64_t r, std::int64_t begin,
                               const float (&means)[2], const float (&sum_grad)[kShare],
                               const Gradients& g) {
  float x_grad[kShare];
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    x_grad[i] = n.shape.inverse[r] * fmaf(-g.y[i], means[1], g.d[i] - means[0]) + sum_grad[i];
  }
  store_share<kWidth>(x_grad, begin, n.shape.width, static_cast<T*>(n.x_grad) + r * n.shape.width);
}

template <class T, int kWidth>
__device__ void load_sum_grad(const NormBackward& n, std::int64_t r, std::int64_t begin,
                              float (&sum_grad)[kShare]) {
  if (n.sum_grad == nullptr) return;
  load_share<kWidth>(static_cast<const T*>(n.sum_grad) + r * n.shape.width, begin, n.shape.width, 0,
                     sum_grad);
}

// The sums of a block of rows for the columns of a share.
struct ParameterSums {
  float weight[kShare] = {}, bias[kShare] = {};

  template <class T>
  __device__ void add(const Gradients& g, bool centred) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      weight[i] = fmaf(g.out_grad[i], centred ? g.y[i] : rounded_to<T>(g.y[i]), weight[i]);
      bias[i] += g.out_grad[i];
    }
  }
};
// f32 partials lie `width` apart, at any alignment of T's vectors.
template <int kWidth>
__device__ void store_sums(const ParameterSums& sums, std::int64_t begin, std::int64_t width,
                           float* partials) {
  store_share<kWidth>(sums.weight, begin, width, partials);
  store_share<kWidth>(sums.bias, begin, width, partials + width);
}

constexpr int kGroupedThreads = 512;  // of a block of more than one group

// Adds the groups' sums to those of the first.
__device__ void add_groups(float (&sums)[kShare]) {
  __shared__ float of_threads[kShare][kGroupedThreads];
  if (blockDim.y == 1) return;
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();  // of_threads of the last call has been read
#pragma unroll
  for (int i = 0; i < kShare; ++i) of_threads[i][thread] = sums[i];
  __syncthreads();
  for (unsigned other = thread + blockDim.x; threadIdx.y == 0 && other < blockDim.x * blockDim.y;
       other += blockDim.x) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) sums[i] += of_threads[i][other];
  }
}

// Rows within the group's span: a thread keeps its columns from row to row. Groups without a row
// left go along to the barriers.
template <class T, int kWidth>
__global__ void __launch_bounds__(kMostThreads) backward_blocks(NormBackward n) {
  const NormShape& s = n.shape;
  const bool centred = s.mean != nullptr;
  const auto count = static_cast<float>(s.width);
  for (std::int64_t block = blockIdx.x; block * kNormBlock < s.rows; block += gridDim.x) {
    const std::int64_t first = block * kNormBlock;
    const std::int64_t end = first + kNormBlock < s.rows ? first + kNormBlock : s.rows;
    ParameterSums sums;
    for (std::int64_t step = first; step < end; step += blockDim.y) {
      const std::int64_t r = step + threadIdx.y;
      Gradients g;
      float sum_grad[kShare] = {}, means[2] = {};
      if (r < end) {
        load_gradients<T, kWidth>(n, r, 0, g);
        load_sum_grad<T, kWidth>(n, r, 0, sum_grad);
        add_products(g, means);
        sums.template add<T>(g, centred);
      }
      over_group<Add>(0.0F, means);
      means[0] = centred ? means[0] / count : 0.0F;
      means[1] /= count;
      if (r < end) store_gradient<T, kWidth>(n, r, 0, means, sum_grad, g);
    }
    add_groups(sums.weight);
    add_groups(sums.bias);
    if (threadIdx.y == 0) {
      store_sums<kWidth>(sums, 0, s.width, n.partials + block * 2 * s.width);
    }
  }
}

// Longer rows: read twice, and their sums lie in the partials from the first row on.
template <class T, int kWidth>
__global__ void __launch_bounds__(kMostThreads) backward_long_blocks(NormBackward n) {
  const NormShape& s = n.shape;
  const std::int64_t span = row_span();
  const bool centred = s.mean != nullptr;
  const auto count = static_cast<float>(s.width);
  for (std::int64_t r = std::int64_t{blockIdx.x} * kNormBlock; r < s.rows;) {
    float* partials = n.partials + r / kNormBlock * 2 * s.width;
    Gradients g;
    float sum_grad[kShare] = {}, means[2] = {};
    for (std::int64_t begin = 0; begin < s.width; begin += span) {
      load_gradients<T, kWidth>(n, r, begin, g);
      add_products(g, means);
      ParameterSums sums;
      if (r % kNormBlock != 0) {
        load_share<kWidth>(partials, begin, s.width, 0, sums.weight);
        load_share<kWidth>(partials + s.width, begin, s.width, 0, sums.bias);
      }
      sums.template add<T>(g, centred);
      store_sums<kWidth>(sums, begin, s.width, partials);
    }
    over_group<Add>(0.0F, means);
    means[0] = centred ? means[0] / count : 0.0F;
    means[1] /= count;
    for (std::int64_t begin = 0; begin < s.width; begin += span) {
      load_gradients<T, kWidth>(n, r, begin, g);
      load_sum_grad<T, kWidth>(n, r, begin, sum_grad);
      store_gradient<T, kWidth>(n, r, begin, means, sum_grad, g);
    }
    // The next row, behind a block's last one that of this block's next turn.
    ++r;
    if (r % kNormBlock == 0) r += (std::int64_t{gridDim.x} - 1) * kNormBlock;
  }
}

template <class T>
void forward(const NormForward& n, Stream stream) {
  const NormShape& s = n.shape;
  const bool vectors = rows_align<T>(s.width, n.x, n.addend, n.sum, n.out, s.weight, s.bias);
  launch("norm_forward", vectors ? forward_rows<T, kVector<T>> : forward_rows<T, 1>,
         {s.rows, row_threads(s.width, kMostThreads)}, stream, n);
}

template <class T, int kWidth>
auto backward_kernel(bool whole) {
  return whole ? backward_blocks<T, kWidth> : backward_long_blocks<T, kWidth>;
}
template <class T>
void backward(const NormBackward& n, Stream stream) {
  constexpr int kMostGroups = 8;
  const NormShape& s = n.shape;
  const bool vectors =
      rows_align<T>(s.width, n.x, n.out_grad, n.sum_grad, n.x_grad, s.weight, n.partials);
  const int threads = row_threads(s.width, kMostThreads);
  const bool whole = s.width <= std::int64_t{threads} * kShare;
  int groups = 1;
  while (2 * groups <= kMostGroups && 2 * groups * threads <= kGroupedThreads) groups *= 2;
  launch("norm_backward",
         vectors ? backward_kernel<T, kVector<T>>(whole) : backward_kernel<T, 1>(whole),
         {div_up(s.rows, kNormBlock), threads, groups}, stream, n);
}

}  // namespace

void norm_forward(const NormForward& norm, Stream stream) {
  if (norm.shape.rows == 0 || norm.shape.width == 0) return;
  norm.shape.element == Element::kF32 ? forward<float>(norm, stream) : forward<Bf16>(norm, stream);
}

void norm_backward(const NormBackward& norm, Stream stream) {
  const NormShape& s = norm.shape;
  if (s.rows == 0 || s.width == 0) return;
  s.element == Element::kF32 ? backward<float>(norm, stream) : backward<Bf16>(norm, stream);
  PartialSums sums{norm.partials, div_up(s.rows, kNormBlock), s.width, 2 * s.width,
                   norm.weight_grad};
  launch_partial_sums("norm_backward", sums, stream);
  if (norm.bias_grad == nullptr) return;
  sums.partials += s.width;
  sums.total = norm.bias_grad;
  launch_partial_sums("norm_backward", sums, stream);
}

}  // namespace trireme::ops::cuda

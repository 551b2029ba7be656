// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Softmax with cross-entropy: a block per row reads its logits twice. First each thread takes the
// maximum and the sum of exponentials of what it reads in one go (Milakov and Gimelshein, "Online
// normalizer calculation for softmax", 2018): whenever its maximum grows, it scales its sum down.
// Then the gradient. Exponentials are taken again, which is faster than to store them.

#include "trireme/ops/cuda/device-inl.cuh"
#include "trireme/ops/cuda/kernels.h"

namespace trireme::ops::cuda {
namespace {

using namespace detail;

constexpr int kMostThreads = 512;
constexpr float kInfinity = __builtin_huge_valf();

// most is finite from the start, so that the logit minus infinity (and what stands for the columns
// beyond the row) gives 0 and not a NaN.
struct OnlineSum {
  float most = -3.4028234664e38F, sum = 0;

  __device__ void add(const float (&share)[kShare]) {
    float more = most;
#pragma unroll
    for (int i = 0; i < kShare; ++i) more = fmaxf(more, share[i]);
    sum *= expf(most - more);
    most = more;
#pragma unroll
    for (int i = 0; i < kShare; ++i) sum += expf(share[i] - most);
  }
};

// The same in all threads: the row's maximum, and the sum of the exponentials of what is above it.
template <int kWidth>
__device__ void sum_exponentials(const float* row, std::int64_t columns, float& most, double& sum) {
  OnlineSum own;
  for (std::int64_t begin = 0; begin < columns; begin += row_span()) {
    float share[kShare];
    load_share<kWidth>(row, begin, columns, -kInfinity, share);
    own.add(share);
  }
  float greatest[1] = {own.most};
  over_group<Most>(own.most, greatest);
  most = greatest[0];
  sum = group_sum(static_cast<double>(own.sum * expf(own.most - most)));
}

// gradient may be row: a thread has read what it overwrites.
template <class T, int kWidth>
__device__ void store_softmax(const float* row, std::int64_t columns, std::int64_t target,
                              float most, float sum, float scale, T* gradient) {
  const float factor = scale / sum;
  for (std::int64_t begin = 0; begin < columns; begin += row_span()) {
    float share[kShare];
    load_share<kWidth>(row, begin, columns, -kInfinity, share);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const float e = expf(share[i] - most);
      share[i] = share_column<kWidth>(begin, i) == target ? (e / sum - 1.0F) * scale : e * factor;
    }
    store_share<kWidth>(share, begin, columns, gradient);
  }
}

template <class T, int kWidth>
__device__ void store_zeros(std::int64_t columns, T* gradient) {
  const float zeros[kShare] = {};
  for (std::int64_t begin = 0; begin < columns; begin += row_span()) {
    store_share<kWidth>(zeros, begin, columns, gradient);
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kMostThreads)
    cross_entropy_all(CrossEntropyRows e, const float* scale) {
  for (std::int64_t r = blockIdx.x; r < e.rows; r += gridDim.x) {
    const float* row = e.logits + r * e.columns;
    const std::int64_t target = e.targets[r];
    T* gradient = e.gradient == nullptr ? nullptr : static_cast<T*>(e.gradient) + r * e.columns;
    if (target < 0) {
      if (threadIdx.x == 0) e.losses[r] = 0;
      if (gradient != nullptr) store_zeros<T, kWidth>(e.columns, gradient);
      continue;
    }
    const double logit = row[target];  // before the barriers behind which it is overwritten
    float most = 0;
    double sum = 0;
    sum_exponentials<kWidth>(row, e.columns, most, sum);
    if (threadIdx.x == 0) e.losses[r] = log(sum) + most - logit;
    if (gradient == nullptr) continue;
    store_softmax<T, kWidth>(row, e.columns, target, most, static_cast<float>(sum), *scale,
                             gradient);
  }
}

template <class T>
void cross_entropy(const CrossEntropyRows& e, const float* scale, Stream stream) {
  const bool vectors = rows_align<float>(e.columns, e.logits, e.gradient);
  launch("cross_entropy_rows",
         vectors ? cross_entropy_all<T, kVector<float>> : cross_entropy_all<T, 1>,
         {e.rows, row_threads(e.columns, kMostThreads)}, stream, e, scale);
}

}  // namespace

void cross_entropy_rows(const CrossEntropyRows& rows, const float* scale, Stream stream) {
  rows.gradient_element == Element::kF32 ? cross_entropy<float>(rows, scale, stream)
                                         : cross_entropy<Bf16>(rows, scale, stream);
}

}  // namespace trireme::ops::cuda

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Sums over rows, step two: the sums of blocks of rows become one.
#pragma once

#include "trireme/ops/cuda/device-inl.cuh"

namespace trireme::ops::cuda::detail {

// Blocks of kStrips warps. A warp takes kWarp columns and every kStrips-th row; the warps' sums are
// added in order.
inline constexpr int kStrips = 8;
inline constexpr int kStripThreads = kStrips * kWarp;

struct PartialSums {
  const float* partials = nullptr;  // [blocks, columns], rows `stride` apart
  std::int64_t blocks = 0, columns = 0, stride = 0;
  float* total = nullptr;  // [columns], added to
};

static __global__ void __launch_bounds__(kStripThreads) add_partial_sums(PartialSums p) {
  __shared__ float strips[kStrips][kWarp];
  const int lane = threadIdx.x % kWarp, strip = threadIdx.x / kWarp;
  for (std::int64_t tile = blockIdx.x; tile * kWarp < p.columns; tile += gridDim.x) {
    const std::int64_t c = tile * kWarp + lane;
    float sum = 0;
    if (c < p.columns) {
#pragma unroll 4
      for (std::int64_t b = strip; b < p.blocks; b += kStrips) sum += p.partials[b * p.stride + c];
    }
    strips[strip][lane] = sum;
    __syncthreads();
    if (strip == 0 && c < p.columns) {
      for (int other = 1; other < kStrips; ++other) sum += strips[other][lane];
      p.total[c] += sum;
    }
    __syncthreads();
  }
}

inline void launch_partial_sums(const char* name, const PartialSums& sums, Stream stream) {
  if (sums.blocks == 0) return;
  launch(name, add_partial_sums, {div_up(sums.columns, kWarp), kStripThreads}, stream, sums);
}

}  // namespace trireme::ops::cuda::detail

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The optimizer's loops of optim/kernels.h on a CUDA device: pointers in the device's memory, work
// queued on a stream of the current device. The update is elementwise, in the same order of
// operations as on the CPU, with the same stochastic roundings: both give the same bits.
#pragma once

#include <cstdint>

#include "trireme/ops/cuda/stream.h"
#include "trireme/optim/kernels.h"

namespace trireme::optim::cuda {

using ops::cuda::Stream;

// One update of count elements in one launch. Elements inside [bounds[2 i], bounds[2 i + 1]) of
// num_bounds / 2 ascending disjoint ranges are multiplied by `keep` first (weight decay); bounds:
// device memory.
struct AdamWBuffers {
  std::int64_t count = 0;
  float* weights = nullptr;
  float* gradients = nullptr;
  float* first_moment = nullptr;
  float* second_moment = nullptr;
  const std::int64_t* bounds = nullptr;
  std::int64_t num_bounds = 0;
};
// gradient_scale: one float in device memory that multiplies scalars.gradient_scale (the clip
// factor, which so never has to come to the host); null: none.
void adamw_update(const detail::AdamWScalars& scalars, float keep, const float* gradient_scale,
                  const AdamWBuffers& buffers, const detail::UpdateExtras& extras, Stream stream);
void round_weights(std::int64_t count, const float* weights, const detail::UpdateExtras& extras,
                   Stream stream);

using detail::kNormBlock;
// sums[b] = the sum of squares of block b's values, f64, with the CPU's bits. sums: device memory,
// [ceil(count / kNormBlock)].
void sums_of_squares(const float* values, std::int64_t count, double* sums, Stream stream);

}  // namespace trireme::optim::cuda

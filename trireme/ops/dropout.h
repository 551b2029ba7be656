// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Dropout whose mask is a function of what an element stands for, not of who computes it: the same
// on every layout, and made again in the backward pass instead of kept.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trireme::ops {

// Which elements are dropped: bits of Philox4x32 under key `seed`, counted by place, row and
// column.
struct DropoutMask {
  double share = 0;  // of the elements, below 1; taken to the nearest 1 / 65536
  std::uint64_t seed = 0;
  std::uint32_t place = 0;  // in the model: masks of different places are independent
  at::Tensor rows_N = {};   // i64, what row of all there are each row of x is, any shape
};

// x: [..., C], N rows, f32, bf16 or f64 -> the same shape: zeros, or x / (1 - share). The same bits
// on any number of threads and on all vector units. Gradient: x. On a device it goes by way of
// the host. Throws ShapeError.
at::Tensor dropout(const at::Tensor& x, const DropoutMask& mask);

}  // namespace trireme::ops

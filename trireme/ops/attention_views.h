// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From attention's tensors to what its kernels take.
#pragma once

#include <ATen/core/Tensor.h>

#include "trireme/ops/kernels/attention_kernels.h"

namespace trireme::ops {

inline at::Tensor last_dim_contiguous(const at::Tensor& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

inline HeadsView view_BTHD(const at::Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(2), x.stride(1)};
}
inline HeadsView view_BKSD(const at::Tensor& x) {
  return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)};
}

// Of one product of queries and keys, counting the pairs that see each other.
inline double product_flops(const AttentionShape& shape) {
  return 2.0 * visible_pairs(shape) * static_cast<double>(shape.heads * shape.head_width);
}

}  // namespace trireme::ops

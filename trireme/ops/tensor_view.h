// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From LibTorch's tensors to what the kernels of ops/ take.
#pragma once

#include <ATen/core/Tensor.h>

#include "trireme/ops/kernels/element.h"

namespace trireme::ops {

#ifdef TRIREME_WITH_CUDA
inline constexpr bool kHasCudaKernels = true;
#else
inline constexpr bool kHasCudaKernels = false;
#endif

// Whether the kernels take tensors like this one: f32 or bf16, on the CPU, or on a CUDA device in a
// build with kernels for it. others: whatever they read beside it; all but undefined ones must lie
// on the same device (LibTorch's operations, asked instead, say so).
template <class... Tensors>
bool has_kernels(const at::Tensor& tensor, const Tensors&... others) {
  const bool on_device = tensor.is_cpu() || (kHasCudaKernels && tensor.is_cuda());
  return on_device &&
         (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16) &&
         ((!others.defined() || others.device() == tensor.device()) && ...);
}

inline Element element_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat ? Element::kF32 : Element::kBf16;
}

// A 2-dim tensor, rows or columns contiguous.
inline MatrixView view_of(const at::Tensor& matrix) {
  return {matrix.data_ptr(), element_of(matrix), matrix.size(0),
          matrix.size(1),    matrix.stride(0),   matrix.stride(1)};
}

// [..., C] as [N, C] with contiguous rows; copies only what does not lie so.
inline at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}).contiguous(); }

// The number of rows of [..., C].
inline std::int64_t num_rows(const at::Tensor& x) {
  return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1);
}

}  // namespace trireme::ops

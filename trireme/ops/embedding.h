// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rows of a matrix by index.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// weight[indices]. weight: [V, C], floating; indices: i64 of any shape, each in [0, V). Returns
// [..., C]. Gradient: weight; on the CPU the gradients of a row are added in the order of the
// indices, in f32 at least, whatever the threads, and rounded once (LibTorch adds them in bf16,
// where a sum of ones ends at 256). Throws c10::IndexError.
at::Tensor embedding(const at::Tensor& weight_VC, const at::Tensor& indices);

}  // namespace trireme::ops

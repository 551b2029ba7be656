// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Sums of flat buffers.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// to += from, and from = 0, in one pass over memory: how two sums of gradients become one and leave
// a buffer for the next. Both f32 [n], contiguous, on one device: the CPU, or a CUDA device in a
// build with kernels for it. Blocks on the CPU, is queued on the current stream of a device. Throws
// ShapeError.
void add_and_clear(const at::Tensor& to, const at::Tensor& from);

}  // namespace trireme::ops

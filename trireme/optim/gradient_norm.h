// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The norm of a gradient, and what clipping makes of it.
//
//   const double norm = optim::global_norm(flat.grad());
//   adamw.step({..., .gradient_scale = optim::clip_scale(norm, 1.0)});
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::optim {

// Square root of the sum of squares of a flat f32 tensor: f64 sums over fixed blocks, added in one
// fixed binary tree, so the bits depend neither on threads nor on vector units' width nor on the
// device. Blocks: the value comes to the host. Throws ShapeError.
double global_norm(const at::Tensor& flat);
// The same as an f64 scalar on the tensor's device. On a CUDA device nothing waits for it.
at::Tensor global_norm_on_device(const at::Tensor& flat);

// The leaves of that tree, f64 [ceil(n / kShardBlock)], on the CPU: the sums of squares of blocks
// of kShardBlock elements, so that ranks which hold parts of a buffer, cut at blocks, find its norm
// together. flat: f32, contiguous, on the CPU. Throws ShapeError.
at::Tensor block_sums(const at::Tensor& flat);
// Square root of the sum of all leaves, which it overwrites.
double norm_of_blocks(const at::Tensor& sums);

// The factor that brings a gradient of this norm down to max_norm; 1 when it is shorter already, or
// when max_norm is 0 (no clipping).
double clip_scale(double norm, double max_norm);
// The same of global_norm_on_device(), f32: for OptimizerUpdate::gradient_factor.
at::Tensor clip_scale(const at::Tensor& norm, double max_norm);

}  // namespace trireme::optim

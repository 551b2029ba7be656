// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Normalisation over the last dim.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// (x - mean) / sqrt(variance + epsilon) x weight + bias. x: [..., C]; weight, bias: [C], x's dtype.
// Computed in f32 at least. Gradient: all three.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight_C, const at::Tensor& bias_C,
                      double epsilon);

// x / sqrt(mean(x^2) + epsilon) x weight (Zhang and Sennrich 2019). The normalisation is computed
// in f32 at least and rounded once to x's dtype before the weight. Gradient: x, weight.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight_C, double epsilon);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Normalisation over the last dim, alone or in one pass with the residual addition before it.
//
//   const auto [x, y] = ops::add_layer_norm(stream, change, weight, bias, epsilon);
//
// Computed in f32 at least. Gradients of parameters are sums in f32, whatever the threads. Cost:
// each tensor named is read or written once.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// (x - mean) / sqrt(variance + epsilon) x weight + bias. x: [..., C]; weight, bias: [C], x's dtype.
// Gradient: all three. Throws ShapeError.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight_C, const at::Tensor& bias_C,
                      double epsilon);

// x / sqrt(mean(x^2) + epsilon) x weight (Zhang and Sennrich 2019). The normalised value is rounded
// once to x's dtype before the weight. Gradient: x, weight. Throws ShapeError.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight_C, double epsilon);

struct AddedNorm {
  at::Tensor sum;     // x + addend
  at::Tensor normed;  // the norm of sum
};

// The same of x + addend, which is returned too. Gradient: x, addend and the parameters. Without an
// addend (undefined) the sum is x: whoever uses x on, and not x itself, has the two parts of x's
// gradient added with the bits that they have where there is one.
AddedNorm add_layer_norm(const at::Tensor& x, const at::Tensor& addend, const at::Tensor& weight_C,
                         const at::Tensor& bias_C, double epsilon);
AddedNorm add_rms_norm(const at::Tensor& x, const at::Tensor& addend, const at::Tensor& weight_C,
                       double epsilon);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Layer norm and RMS norm over contiguous rows, fused with the residual add.
//
// Sums over a row are f32 sums in one order for a given width of the vector units; sums over rows
// (the parameters' gradients) go over blocks of kNormBlock rows, which are added in order. Nothing
// depends on the threads.
#pragma once

#include <cstdint>

#include "trireme/ops/kernels/element.h"

namespace trireme::ops {

// What both directions share. mean is null for RMS norm. weight, bias: [width], of type element;
// bias may be null. mean, inverse: f32 [rows], written forward and read backward.
struct NormShape {
  Element element = Element::kF32;
  std::int64_t rows = 0;
  std::int64_t width = 0;
  const void* weight = nullptr;
  const void* bias = nullptr;
  float* mean = nullptr;
  float* inverse = nullptr;  // 1 / sqrt(variance + epsilon), or 1 / sqrt(mean square + epsilon)
};

// out = norm(x + addend), sum = x + addend (rounded to the type). addend and sum: both or neither.
struct NormForward {
  NormShape shape;
  float epsilon = 0;
  const void* x = nullptr;
  const void* addend = nullptr;
  void* sum = nullptr;
  void* out = nullptr;
};
void norm_forward(const NormForward& norm);

inline constexpr std::int64_t kNormBlock = 32;  // rows
constexpr std::int64_t norm_blocks(std::int64_t rows) {
  return (rows + kNormBlock - 1) / kNormBlock;
}

// x_grad = sum_grad (null: none) + the norm's gradient at x; weight_grad, bias_grad (null without
// bias): f32 [width], to which the sum over all rows is added, once. partials: scratch, f32
// [norm_blocks(rows), 2, width].
struct NormBackward {
  NormShape shape;
  const void* x = nullptr;  // the sum, where there was one
  const void* out_grad = nullptr;
  const void* sum_grad = nullptr;
  void* x_grad = nullptr;
  float* weight_grad = nullptr;
  float* bias_grad = nullptr;
  float* partials = nullptr;
};
void norm_backward(const NormBackward& norm);

}  // namespace trireme::ops

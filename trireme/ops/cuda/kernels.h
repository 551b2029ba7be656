// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The row kernels of ops/kernels/ on a CUDA device: the same operands, all pointers in the device's
// memory. Every call queues its work on a stream of the current device and returns; nothing waits.
//
// Sums are taken in a fixed order: a call gives the same bits every time on a device, whatever its
// number of multiprocessors. They are not the CPU's bits (other orders, other exponentials).
// Throws Error naming the kernel when a launch is refused.
#pragma once

#include <cstdint>

#include "trireme/ops/cuda/stream.h"
#include "trireme/ops/kernels/element.h"
#include "trireme/ops/kernels/matrix_product.h"
#include "trireme/ops/kernels/norm_kernels.h"
#include "trireme/ops/kernels/row_kernels.h"

namespace trireme::ops::cuda {

void norm_forward(const NormForward& norm, Stream stream);
// partials as norm_kernels.h says.
void norm_backward(const NormBackward& norm, Stream stream);

void rotate_heads(const Rotation& rotation, Stream stream);
void look_up_rows(const EmbeddingRows& rows, Stream stream);
// order, starts and targets in device memory too.
void add_row_groups(const RowGroups& groups, Stream stream);
// The gradient is multiplied by *scale, one float in device memory, in place of rows.scale.
void cross_entropy_rows(const CrossEntropyRows& rows, const float* scale, Stream stream);
void activate(const Activation& activation, Stream stream);

// What matrix_product() does after the product: every element of product [rows, columns],
// contiguous, goes through the epilogue. product may be epilogue.out, where their elements agree.
struct EpiloguePass {
  const void* product = nullptr;
  Element product_element = Element::kF32;
  std::int64_t rows = 0, columns = 0;
  Epilogue epilogue;
};
void apply_epilogue(const EpiloguePass& pass, Stream stream);

inline constexpr std::int64_t kColumnSumRows = 64;  // of one block of add_column_sums()
// Sums of the columns of a matrix (rows contiguous), added to sums [columns]. partials: scratch,
// f32 [ceil(rows / kColumnSumRows), columns].
void add_column_sums(const MatrixView& values, float* sums, float* partials, Stream stream);

// to += from, from = 0; both f32 [count].
void add_and_clear(float* to, float* from, std::int64_t count, Stream stream);

}  // namespace trireme::ops::cuda

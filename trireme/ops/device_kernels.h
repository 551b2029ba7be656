// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The kernels of ops/kernels/ on the device of the tensors whose memory they get. On the CPU they
// run on ops' threads and block. On a CUDA device (cuda/kernels.h) they are queued on its current
// stream, and nothing waits for them.
//
//   norm_forward(x.device(), {.shape = ..., .x = x.data_ptr(), .out = out.data_ptr()});
//
// A descriptor's pointers lie in the device's memory. Callers have asked has_kernels()
// (tensor_view.h); a device without kernels is an InternalError.
#pragma once

#include <c10/core/Device.h>

#include "trireme/ops/kernels/matrix_product.h"
#include "trireme/ops/kernels/norm_kernels.h"
#include "trireme/ops/kernels/row_kernels.h"

namespace trireme::ops {

void norm_forward(c10::Device device, const NormForward& norm);
void norm_backward(c10::Device device, const NormBackward& norm);
void rotate_heads(c10::Device device, const Rotation& rotation);
void look_up_rows(c10::Device device, const EmbeddingRows& rows);
void add_row_groups(c10::Device device, const RowGroups& groups);
void activate(c10::Device device, const Activation& activation);
// scale: one float in the device's memory, in place of rows.scale.
void cross_entropy_rows(c10::Device device, const CrossEntropyRows& rows, const float* scale);
// On CUDA: cuda/matrix_product.h says what differs.
void matrix_product(c10::Device device, const MatrixView& left, const MatrixView& right,
                    const Epilogue& epilogue);
void add_column_sums(c10::Device device, const MatrixView& values, float* sums);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ops::matrix_product() on a CUDA device: cuBLAS, and for all but a plain store or sum one pass
// over the result (apply_epilogue), which is rounded to the output's type in between.
//
// Both matrices have one element type; the output is f32, or bf16 where they are. Sums are f32. f32
// products use TF32 where LibTorch may (Context::allowTF32CuBLAS). The output's rows follow one
// another: stride = columns. Bits: cuBLAS's, the same again for the same shape on the same device
// with one stream in use; not those of the CPU, nor independent of the number of rows.
#pragma once

#include "trireme/ops/cuda/kernels.h"
#include "trireme/ops/kernels/matrix_product.h"

namespace trireme::ops::cuda {

// stream: LibTorch's current one on the current device. Queues the work and returns. Throws Error
// with cuBLAS's reason.
void matrix_product(const MatrixView& left, const MatrixView& right, const Epilogue& epilogue,
                    Stream stream);

}  // namespace trireme::ops::cuda

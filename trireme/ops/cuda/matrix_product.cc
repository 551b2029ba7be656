// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/cuda/matrix_product.h"

#include <ATen/cuda/CUDAContext.h>
#include <cublas_v2.h>

#include <algorithm>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

namespace trireme::ops::cuda {
namespace {

cudaDataType_t type_of(Element element) {
  return element == Element::kF32 ? CUDA_R_32F : CUDA_R_16BF;
}

// A matrix as cuBLAS sees it, which counts by columns: our rows are its columns.
struct Operand {
  cublasOperation_t operation;
  std::int64_t leading;
};
Operand operand_of(const MatrixView& matrix) {
  if (matrix.column_stride == 1) {
    return {CUBLAS_OP_N, std::max({matrix.row_stride, matrix.columns, std::int64_t{1}})};
  }
  return {CUBLAS_OP_T, std::max({matrix.column_stride, matrix.rows, std::int64_t{1}})};
}

// Partial sums of bf16 products stay f32, whatever LibTorch allows its own, while this lives.
class F32Sums {
 public:
  F32Sums(cublasHandle_t handle, bool needed) : handle_(handle), needed_(needed) {
    if (!needed_) return;
    cublasGetMathMode(handle_, &before_);
    cublasSetMathMode(handle_,
                      static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                                CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION));
  }
  F32Sums(const F32Sums&) = delete;
  F32Sums& operator=(const F32Sums&) = delete;
  ~F32Sums() {
    if (needed_) cublasSetMathMode(handle_, before_);
  }

 private:
  cublasHandle_t handle_;
  bool needed_;
  cublasMath_t before_ = CUBLAS_DEFAULT_MATH;
};

// out = left right (+ out). By columns: out^T = right^T left^T.
void multiply(const MatrixView& left, const MatrixView& right, const Epilogue& epilogue) {
  const float one = 1.0F, beta = epilogue.kind == Epilogue::Kind::kAdd ? 1.0F : 0.0F;
  const Operand a = operand_of(right), b = operand_of(left);
  // LibTorch's handle: its stream, its workspace, its choice of TF32.
  const cublasHandle_t handle = at::cuda::getCurrentCUDABlasHandle();
  const F32Sums sums(handle, left.element == Element::kBf16);
  const cublasStatus_t status = cublasGemmEx_64(
      handle, a.operation, b.operation, right.columns, left.rows, left.columns, &one, right.data,
      type_of(right.element), a.leading, left.data, type_of(left.element), b.leading, &beta,
      epilogue.out, type_of(epilogue.element), epilogue.stride, CUBLAS_COMPUTE_32F,
      CUBLAS_GEMM_DEFAULT);
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw_error<Error>("cuBLAS cannot multiply [{}, {}] by [{}, {}]: {}", left.rows, left.columns,
                       right.rows, right.columns, cublasGetStatusString(status));
  }
}

bool is_complete(const Epilogue& epilogue) {
  return epilogue.kind == Epilogue::Kind::kAdd ||
         (epilogue.kind == Epilogue::Kind::kStore && epilogue.bias == nullptr);
}

}  // namespace

void matrix_product(const MatrixView& left, const MatrixView& right, const Epilogue& epilogue,
                    Stream stream) {
  TRIREME_CHECK_EQ(left.columns, right.rows, "the inner dim of a product");
  TRIREME_ASSERT(left.element == right.element &&
                     (epilogue.element == Element::kF32 || left.element == Element::kBf16),
                 "products on a CUDA device are of one element type, into it or into f32");
  TRIREME_CHECK_EQ(epilogue.stride, right.columns, "the result of a product on a CUDA device");
  multiply(left, right, epilogue);
  if (is_complete(epilogue)) return;
  apply_epilogue({.product = epilogue.out,
                  .product_element = epilogue.element,
                  .rows = left.rows,
                  .columns = right.columns,
                  .epilogue = epilogue},
                 stream);
}

}  // namespace trireme::ops::cuda

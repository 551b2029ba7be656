// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/device_kernels.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "trireme/base/check.h"
#include "trireme/ops/cuda/device_scope.h"
#include "trireme/ops/cuda/kernels.h"
#include "trireme/ops/cuda/matrix_product.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

// on_cuda: takes the stream as `auto`, so that a build without CUDA never compiles it.
template <class OnCpu, class OnCuda>
void run_on(c10::Device device, const OnCpu& on_cpu, const OnCuda& on_cuda) {
  if (device.is_cpu()) return on_cpu();
  TRIREME_ASSERT(kHasCudaKernels && device.is_cuda(), "there are no kernels for {}", device.str());
  if constexpr (kHasCudaKernels) {
    const cuda::DeviceScope scope(device);
    on_cuda(scope.stream());
  }
}

}  // namespace

void norm_forward(c10::Device device, const NormForward& norm) {
  run_on(
      device, [&] { norm_forward(norm); }, [&](auto stream) { cuda::norm_forward(norm, stream); });
}

void norm_backward(c10::Device device, const NormBackward& norm) {
  run_on(
      device, [&] { norm_backward(norm); },
      [&](auto stream) { cuda::norm_backward(norm, stream); });
}

void rotate_heads(c10::Device device, const Rotation& rotation) {
  run_on(
      device, [&] { rotate_heads(rotation); },
      [&](auto stream) { cuda::rotate_heads(rotation, stream); });
}

void look_up_rows(c10::Device device, const EmbeddingRows& rows) {
  run_on(
      device, [&] { look_up_rows(rows); }, [&](auto stream) { cuda::look_up_rows(rows, stream); });
}

void add_row_groups(c10::Device device, const RowGroups& groups) {
  run_on(
      device, [&] { add_row_groups(groups); },
      [&](auto stream) { cuda::add_row_groups(groups, stream); });
}

void activate(c10::Device device, const Activation& activation) {
  run_on(
      device, [&] { activate(activation); },
      [&](auto stream) { cuda::activate(activation, stream); });
}

void cross_entropy_rows(c10::Device device, const CrossEntropyRows& rows, const float* scale) {
  run_on(
      device,
      [&] {
        CrossEntropyRows scaled = rows;
        scaled.scale = *scale;
        cross_entropy_rows(scaled);
      },
      [&](auto stream) { cuda::cross_entropy_rows(rows, scale, stream); });
}

void matrix_product(c10::Device device, const MatrixView& left, const MatrixView& right,
                    const Epilogue& epilogue) {
  run_on(
      device, [&] { matrix_product(left, right, epilogue); },
      [&](auto stream) { cuda::matrix_product(left, right, epilogue, stream); });
}

void add_column_sums(c10::Device device, const MatrixView& values, float* sums) {
  run_on(
      device, [&] { add_column_sums(values, sums); },
      [&](auto stream) {
        const std::int64_t blocks = (values.rows + cuda::kColumnSumRows - 1) / cuda::kColumnSumRows;
        const at::Tensor partials = at::empty({blocks, values.columns},
                                              at::TensorOptions().dtype(at::kFloat).device(device));
        cuda::add_column_sums(values, sums, partials.data_ptr<float>(), stream);
      });
}

}  // namespace trireme::ops

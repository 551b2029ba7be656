// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/flat_sums.h"

#include "trireme/base/error.h"
#include "trireme/ops/cuda/device_scope.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {

void add_and_clear(const at::Tensor& to, const at::Tensor& from) {
  const auto fits = [](const at::Tensor& t) {
    return t.scalar_type() == at::kFloat && t.is_contiguous();
  };
  if (!fits(to) || !fits(from) || !has_kernels(to, from) || to.numel() != from.numel()) {
    throw_error<ShapeError>(
        "sums of gradients are contiguous f32, of one size, on one device that has kernels; got {} "
        "elements on {} and {} on {}",
        to.numel(), to.device().str(), from.numel(), from.device().str());
  }
  if constexpr (kHasCudaKernels) {
    if (to.is_cuda()) {
      const cuda::DeviceScope scope(to.device());
      return cuda::add_and_clear(to.data_ptr<float>(), from.data_ptr<float>(), to.numel(),
                                 scope.stream());
    }
  }
  constexpr std::int64_t kGrain = 1 << 16;
  float* sums = to.data_ptr<float>();
  float* added = from.data_ptr<float>();
  run_ranges(to.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      sums[i] += added[i];
      added[i] = 0.0F;
    }
  });
}

}  // namespace trireme::ops

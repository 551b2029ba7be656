// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/gradient_norm.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "trireme/base/error.h"
#include "trireme/ops/cuda/device_scope.h"
#include "trireme/ops/tensor_view.h"
#include "trireme/optim/cuda/kernels.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/optim/kernels.h"
#include "trireme/optim/tree_sum.h"

namespace trireme::optim {
namespace {

using detail::kNormBlock;
static_assert(kNormBlock == kShardBlock, "shards are cut at leaves of the norm's tree");

// The sum of squares of each block: f64, on the CPU and on a CUDA device with the same bits.
at::Tensor sums_of_blocks(const at::Tensor& flat) {
  const std::int64_t size = flat.numel();
  const std::int64_t blocks = (size + kNormBlock - 1) / kNormBlock;
  const at::Tensor sums = at::zeros({std::max<std::int64_t>(blocks, 1)},
                                    at::TensorOptions().dtype(at::kDouble).device(flat.device()));
  const float* values = flat.data_ptr<float>();
  auto* results = sums.data_ptr<double>();
  if constexpr (ops::kHasCudaKernels) {
    if (flat.is_cuda()) {
      const ops::cuda::DeviceScope scope(flat.device());
      if (size > 0) cuda::sums_of_squares(values, size, results, scope.stream());
      return sums;
    }
  }
  at::parallel_for(0, blocks, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      results[block] = detail::sum_of_squares(values + block * kNormBlock,
                                              std::min(kNormBlock, size - block * kNormBlock));
    }
  });
  return sums;
}

double tree_sum(const at::Tensor& values) {
  return detail::tree_sum(values.data_ptr<double>(), values.numel());
}

// The same tree by LibTorch's operations: some twenty small ones, whatever the size.
at::Tensor tree_sum_on_device(at::Tensor sums) {
  while (sums.numel() > 1) {
    const std::int64_t count = sums.numel(), pairs = count / 2;
    const at::Tensor two = sums.narrow(0, 0, 2 * pairs).view({pairs, 2});
    const at::Tensor added = two.select(1, 0) + two.select(1, 1);
    sums = count % 2 == 0 ? added : at::cat({added, sums.narrow(0, count - 1, 1)});
  }
  return sums.squeeze(0);
}

void check_norm(const at::Tensor& flat) {
  if (!flat.defined() || flat.scalar_type() != at::kFloat || !flat.is_contiguous() ||
      !ops::has_kernels(flat)) {
    throw_error<ShapeError>(
        "global_norm needs a contiguous f32 tensor on the CPU, or on a CUDA device in a build with "
        "kernels for it");
  }
}

}  // namespace

double global_norm(const at::Tensor& flat) {
  check_norm(flat);
  return flat.is_cpu() ? std::sqrt(tree_sum(sums_of_blocks(flat)))
                       : global_norm_on_device(flat).item<double>();
}

at::Tensor global_norm_on_device(const at::Tensor& flat) {
  check_norm(flat);
  // LibTorch's root is rounded correctly on a device; on the CPU that depends on its build.
  if (flat.is_cpu()) return at::full({}, global_norm(flat), at::kDouble);
  return tree_sum_on_device(sums_of_blocks(flat)).sqrt();
}

at::Tensor block_sums(const at::Tensor& flat) {
  check_norm(flat);
  if (!flat.is_cpu()) throw_error<ShapeError>("the sums of blocks are made on the CPU");
  return sums_of_blocks(flat);
}

double norm_of_blocks(const at::Tensor& sums) { return std::sqrt(tree_sum(sums)); }

double clip_scale(double norm, double max_norm) {
  return max_norm > 0.0 && norm > max_norm ? max_norm / norm : 1.0;
}

at::Tensor clip_scale(const at::Tensor& norm, double max_norm) {
  const at::Tensor most = at::full_like(norm, max_norm);
  const at::Tensor scale = max_norm > 0.0
                               ? at::where(norm.gt(max_norm), most / norm, at::ones_like(norm))
                               : at::ones_like(norm);
  return scale.to(at::kFloat);
}

}  // namespace trireme::optim

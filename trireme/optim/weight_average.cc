// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/weight_average.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sub.h>

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme::optim {
namespace {

// Elements that are worked on at once: on a CPU what a core's cache holds, on a device enough for
// the launches not to count.
std::int64_t block_size(const at::Tensor& tensor) {
  constexpr std::int64_t kCpuBlock = std::int64_t{1} << 18;     // 1 MiB
  constexpr std::int64_t kDeviceBlock = std::int64_t{1} << 24;  // 64 MiB
  return tensor.is_cpu() ? kCpuBlock : kDeviceBlock;
}

std::int64_t count_elements(std::span<const PieceUpdate> pieces) {
  std::int64_t count = 0;
  for (const PieceUpdate& piece : pieces) {
    if (!piece.weights.defined() || piece.weights.scalar_type() != at::kFloat ||
        piece.weights.dim() != 1) {
      throw_error<ShapeError>("piece {} of the weights to average is not f32 [elements]",
                              &piece - pieces.data());
    }
    count += piece.weights.numel();
  }
  return count;
}

// Calls visit(part of average, part of weights) for all elements, block by block.
template <class Visit>
void for_each_block(const at::Tensor& average, std::span<const PieceUpdate> pieces,
                    const Visit& visit) {
  if (const std::int64_t count = count_elements(pieces); count != average.numel()) {
    throw_error<ShapeError>("the average has {} elements, but these pieces have {}",
                            average.numel(), count);
  }
  std::int64_t begin = 0;
  for (const PieceUpdate& piece : pieces) {
    const std::int64_t count = piece.weights.numel();
    const std::int64_t block = block_size(piece.weights);
    for (std::int64_t at = 0; at < count; at += block) {
      const std::int64_t size = std::min(block, count - at);
      visit(average.narrow(0, begin + at, size), piece.weights.narrow(0, at, size));
    }
    begin += count;
  }
}

}  // namespace

WeightAverage::WeightAverage(double decay, std::span<const PieceUpdate> pieces) : decay_(decay) {
  if (!(decay > 0 && decay < 1)) {
    throw_error<ConfigError>("the decay of an average of weights is {}: above 0 and below 1",
                             decay);
  }
  const std::int64_t count = count_elements(pieces);
  const auto device = pieces.empty() ? c10::Device(at::kCPU) : pieces[0].weights.device();
  const MemoryScope scope(MemoryCategory::kOptimizer);
  values_ = at::empty({count}, at::TensorOptions().dtype(at::kFloat).device(device));
  const at::NoGradGuard no_grad;
  for_each_block(values_, pieces, [](const at::Tensor& average, const at::Tensor& weights) {
    average.copy_(weights);
  });
}

// Three operations that each round once: nothing for a compiler to contract, whatever the device.
void WeightAverage::update(std::span<const PieceUpdate> pieces) {
  if (swapped_) throw_error<Error>("the average stands in the weights' place: swap() back first");
  const at::NoGradGuard no_grad;
  const auto t = static_cast<double>(updates_);
  const auto share = static_cast<float>(1 - std::min(decay_, (1 + t) / (10 + t)));
  for_each_block(values_, pieces, [share](const at::Tensor& average, const at::Tensor& weights) {
    average.add_(at::sub(weights, average).mul_(share));
  });
  ++updates_;
}

void WeightAverage::swap(std::span<const PieceUpdate> pieces) {
  const at::NoGradGuard no_grad;
  for_each_block(values_, pieces, [](const at::Tensor& average, const at::Tensor& weights) {
    const at::Tensor kept = average.clone();
    average.copy_(weights);
    weights.copy_(kept);
  });
  swapped_ = !swapped_;
}

}  // namespace trireme::optim

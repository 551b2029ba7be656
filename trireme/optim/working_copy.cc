// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/working_copy.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/optim/kernels.h"

namespace trireme::optim {

std::uint32_t rounding_key(std::int64_t steps) {
  return static_cast<std::uint32_t>(
      RandomStream(0, "stochastic_rounding").bits(static_cast<std::uint64_t>(steps)));
}

void round_weights(const OptimizerConfig& config, std::int64_t steps, std::int64_t begin,
                   const at::Tensor& weights, const at::Tensor& copy) {
  if (weights.scalar_type() != at::kFloat || copy.scalar_type() != at::kBFloat16 ||
      weights.numel() != copy.numel() || !weights.is_contiguous() || !copy.is_contiguous()) {
    throw_error<ShapeError>("{} weights are f32 and contiguous, as is their bf16 copy of {}",
                            weights.numel(), copy.numel());
  }
  const detail::UpdateExtras extras{
      .copy = reinterpret_cast<std::uint16_t*>(copy.data_ptr<at::BFloat16>()),
      .stochastic = config.stochastic_rounding,
      .random_key = rounding_key(steps),
      .first_element = static_cast<std::uint64_t>(begin)};
  at::parallel_for(0, weights.numel(), kShardBlock, [&](std::int64_t from, std::int64_t to) {
    detail::round_weights(to - from, weights.data_ptr<float>() + from,
                          detail::extras_from(extras, from));
  });
}

}  // namespace trireme::optim

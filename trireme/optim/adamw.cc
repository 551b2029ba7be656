// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/ops/cuda/device_scope.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/tensor_view.h"
#include "trireme/optim/cuda/kernels.h"
#include "trireme/optim/kernels.h"

namespace trireme::optim {
namespace {

// Elements that one task takes: 4 arrays of 64 KiB stay in a core's L2.
constexpr std::int64_t kGrain = 16384;

void check_beta(const char* key, double value) {
  if (!(value >= 0.0 && value < 1.0)) {
    throw_error<ConfigError>("optimizer.{} is {}; it must lie in [0, 1)", key, value);
  }
}

at::Tensor zero_moment(std::int64_t size, c10::Device device) {
  const MemoryScope scope(MemoryCategory::kOptimizer);
  return at::zeros({size}, at::TensorOptions().dtype(at::kFloat).device(device));
}

at::Tensor bounds_on(c10::Device device, const std::vector<DecayRange>& ranges) {
  const at::Tensor bounds = at::empty({2 * static_cast<std::int64_t>(ranges.size())}, at::kLong);
  auto* next = bounds.data_ptr<std::int64_t>();
  for (const DecayRange& range : ranges) {
    *next++ = range.begin;
    *next++ = range.end;
  }
  return bounds.to(device);
}

std::uint16_t* bf16_data(const at::Tensor& copy) {
  return copy.defined() ? reinterpret_cast<std::uint16_t*>(copy.data_ptr<at::BFloat16>()) : nullptr;
}

// The chances of a step's roundings.
std::uint32_t rounding_key(std::int64_t steps) {
  return static_cast<std::uint32_t>(
      RandomStream(0, "stochastic_rounding").bits(static_cast<std::uint64_t>(steps)));
}

}  // namespace

void AdamWConfig::visit(ConfigFields& f) {
  f.field("beta1", beta1, "decay of the gradient's running mean");
  f.field("beta2", beta2, "decay of the squared gradient's running mean");
  f.field("epsilon", epsilon, "added to the root of the squared gradient's mean");
  f.field("weight_decay", weight_decay,
          "share of a matrix that a step removes, times learning rate");
  f.field("stochastic_rounding", stochastic_rounding,
          "bf16: round the weights that the model computes with up or down by chance, so that "
          "small changes are not lost; the f32 weights are not touched");
}

void AdamWConfig::validate() const {
  check_beta("beta1", beta1);
  check_beta("beta2", beta2);
  if (!(epsilon > 0.0) || !std::isfinite(epsilon)) {
    throw_error<ConfigError>("optimizer.epsilon is {}; it must be above 0", epsilon);
  }
  if (!(weight_decay >= 0.0) || !std::isfinite(weight_decay)) {
    throw_error<ConfigError>("optimizer.weight_decay is {}; it must be at least 0", weight_decay);
  }
}

AdamW::AdamW(const AdamWConfig& config, std::int64_t size, std::vector<DecayRange> ranges,
             c10::Device device)
    : AdamW(config, zero_moment(size, device), zero_moment(size, device), std::move(ranges)) {}

AdamW::AdamW(const AdamWConfig& config, at::Tensor first_moment, at::Tensor second_moment,
             std::vector<DecayRange> ranges)
    : config_(config),
      ranges_(std::move(ranges)),
      first_moment_(std::move(first_moment)),
      second_moment_(std::move(second_moment)) {
  const std::int64_t size = first_moment_.numel();
  const c10::Device device = first_moment_.device();
  if (!ops::has_kernels(first_moment_)) {
    throw_error<ShapeError>("the optimizer has no kernels for buffers on {}", device.str());
  }
  check_flat("second_moment", second_moment_, at::kFloat);
  std::int64_t end = 0;
  for (const DecayRange& range : ranges_) {
    TRIREME_CHECK_LE(end, range.begin, "decay ranges ascend");
    TRIREME_CHECK_LE(range.begin, range.end, "a decay range");
    end = range.end;
  }
  TRIREME_CHECK_LE(end, size, "decay ranges lie in the buffer");
  if (!device.is_cpu()) range_bounds_ = bounds_on(device, ranges_);
}

void AdamW::check_flat(const char* what, const at::Tensor& tensor, at::ScalarType dtype) const {
  const std::int64_t size = first_moment_.numel();
  const c10::Device device = first_moment_.device();
  if (!tensor.defined() || tensor.scalar_type() != dtype || tensor.dim() != 1 ||
      tensor.numel() != size || !tensor.is_contiguous() || tensor.device() != device) {
    throw_error<ShapeError>("the buffers have {} elements on {}: {} must be a contiguous {} [{}]",
                            size, device.str(), what, c10::toString(dtype), size);
  }
}

detail::AdamWScalars AdamW::scalars_of(const AdamWUpdate& update) const {
  const auto steps = static_cast<double>(steps_);
  return {
      .gradient_scale = static_cast<float>(update.gradient_scale),
      .beta1 = static_cast<float>(config_.beta1),
      .one_minus_beta1 = static_cast<float>(1.0 - config_.beta1),
      .beta2 = static_cast<float>(config_.beta2),
      .one_minus_beta2 = static_cast<float>(1.0 - config_.beta2),
      .inverse_sqrt_correction2 =
          static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(config_.beta2, steps))),
      .epsilon = static_cast<float>(config_.epsilon),
      .step_size =
          static_cast<float>(update.learning_rate / (1.0 - std::pow(config_.beta1, steps))),
  };
}

detail::AdamWExtras AdamW::extras_of(const at::Tensor& working_copy,
                                     std::int64_t first_element) const {
  return {.copy = bf16_data(working_copy),
          .stochastic = config_.stochastic_rounding,
          .random_key = rounding_key(steps_),
          .first_element = static_cast<std::uint64_t>(first_element)};
}

void AdamW::step(const AdamWUpdate& update) {
  check_flat("weights", update.weights, at::kFloat);
  check_flat("gradients", update.gradients, at::kFloat);
  if (update.working_copy.defined()) {
    check_flat("working_copy", update.working_copy, at::kBFloat16);
  }
  const at::Tensor& factor = update.gradient_factor;
  if (factor.defined() && (factor.scalar_type() != at::kFloat || factor.numel() != 1 ||
                           factor.device() != first_moment_.device())) {
    throw_error<ShapeError>("gradient_factor must be one f32 on {}", first_moment_.device().str());
  }
  ++steps_;
  if (first_moment_.is_cpu()) return step_on_cpu(update);
  step_on_cuda(update);
}

void AdamW::step_on_cpu(const AdamWUpdate& update) {
  detail::AdamWScalars scalars = scalars_of(update);
  if (update.gradient_factor.defined()) {
    scalars.gradient_scale *= *update.gradient_factor.data_ptr<float>();
  }
  const auto decayed = static_cast<float>(1.0 - update.learning_rate * config_.weight_decay);
  auto* w = update.weights.data_ptr<float>();
  auto* g = update.gradients.data_ptr<float>();
  auto* m = first_moment_.data_ptr<float>();
  auto* v = second_moment_.data_ptr<float>();
  detail::AdamWExtras all = extras_of(update.working_copy, update.first_element);
  all.clear_gradients = update.clear_gradients;
  const auto update_range = [&](std::int64_t begin, std::int64_t end, float keep) {
    if (begin == end) return;
    detail::AdamWExtras extras = all;
    if (extras.copy != nullptr) extras.copy += begin;
    extras.first_element += static_cast<std::uint64_t>(begin);
    detail::adamw_update(scalars, keep, end - begin, w + begin, g + begin, m + begin, v + begin,
                         extras);
  };
  at::parallel_for(0, first_moment_.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    const ops::FlushDenormals flush;
    auto range = std::upper_bound(
        ranges_.begin(), ranges_.end(), begin,
        [](std::int64_t position, const DecayRange& r) { return position < r.end; });
    for (std::int64_t at = begin; at < end;) {  // alternately outside and inside of a range
      const std::int64_t inside = range == ranges_.end() ? end : std::clamp(range->begin, at, end);
      update_range(at, inside, 1.0F);
      const std::int64_t outside = range == ranges_.end() ? end : std::clamp(range->end, at, end);
      update_range(inside, outside, decayed);
      at = outside;
      range += range == ranges_.end() ? 0 : 1;
    }
  });
}

void AdamW::step_on_cuda([[maybe_unused]] const AdamWUpdate& update) {
  if constexpr (ops::kHasCudaKernels) {
    const ops::cuda::DeviceScope scope(first_moment_.device());
    const auto decayed = static_cast<float>(1.0 - update.learning_rate * config_.weight_decay);
    detail::AdamWExtras extras = extras_of(update.working_copy, update.first_element);
    extras.clear_gradients = update.clear_gradients;
    const at::Tensor& factor = update.gradient_factor;
    cuda::adamw_update(scalars_of(update), decayed,
                       factor.defined() ? factor.data_ptr<float>() : nullptr,
                       {.count = first_moment_.numel(),
                        .weights = update.weights.data_ptr<float>(),
                        .gradients = update.gradients.data_ptr<float>(),
                        .first_moment = first_moment_.data_ptr<float>(),
                        .second_moment = second_moment_.data_ptr<float>(),
                        .bounds = range_bounds_.data_ptr<std::int64_t>(),
                        .num_bounds = range_bounds_.numel()},
                       extras, scope.stream());
  }
}

void AdamW::round(const at::Tensor& weights, const at::Tensor& working_copy,
                  std::int64_t first_element) const {
  const std::int64_t size = first_moment_.numel();
  check_flat("weights", weights, at::kFloat);
  check_flat("working_copy", working_copy, at::kBFloat16);
  const float* from = weights.data_ptr<float>();
  const detail::AdamWExtras all = extras_of(working_copy, first_element);
  if constexpr (ops::kHasCudaKernels) {
    if (weights.is_cuda()) {
      const ops::cuda::DeviceScope scope(weights.device());
      return cuda::round_weights(size, from, all, scope.stream());
    }
  }
  at::parallel_for(0, size, kGrain, [&](std::int64_t begin, std::int64_t end) {
    const ops::FlushDenormals flush;
    detail::AdamWExtras extras = all;
    extras.copy += begin;
    extras.first_element += static_cast<std::uint64_t>(begin);
    detail::round_weights(end - begin, from + begin, extras);
  });
}

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/random.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/step_parts.h"
#include "trireme/optim/kernels.h"

namespace trireme::optim {
namespace {

// Elements that one task takes: 4 arrays of 64 KiB stay in a core's L2.
constexpr std::int64_t kGrain = 16384;

void check_flat(const char* what, const at::Tensor& tensor, at::ScalarType dtype,
                std::int64_t size) {
  if (!tensor.defined() || tensor.scalar_type() != dtype || tensor.dim() != 1 ||
      tensor.numel() != size || !tensor.is_contiguous() || !tensor.device().is_cpu()) {
    throw_error<ShapeError>("the buffers have {} elements: {} must be a contiguous CPU {} [{}]",
                            size, what, c10::toString(dtype), size);
  }
}

void check_beta(const char* key, double value) {
  if (!(value >= 0.0 && value < 1.0)) {
    throw_error<ConfigError>("optimizer.{} is {}; it must lie in [0, 1)", key, value);
  }
}

at::Tensor zero_moment(std::int64_t size) {
  const MemoryScope scope(MemoryCategory::kOptimizer);
  return at::zeros({size}, at::kFloat);
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

AdamW::AdamW(const AdamWConfig& config, std::int64_t size, std::vector<DecayRange> ranges)
    : config_(config),
      ranges_(std::move(ranges)),
      first_moment_(zero_moment(size)),
      second_moment_(zero_moment(size)) {
  std::int64_t end = 0;
  for (const DecayRange& range : ranges_) {
    TRIREME_CHECK_LE(end, range.begin, "decay ranges ascend");
    TRIREME_CHECK_LE(range.begin, range.end, "a decay range");
    end = range.end;
  }
  TRIREME_CHECK_LE(end, size, "decay ranges lie in the buffer");
}

void AdamW::step(const AdamWUpdate& update) {
  const std::int64_t size = first_moment_.numel();
  check_flat("weights", update.weights, at::kFloat, size);
  check_flat("gradients", update.gradients, at::kFloat, size);
  if (update.working_copy.defined()) {
    check_flat("working_copy", update.working_copy, at::kBFloat16, size);
  }
  ++steps_;
  const auto steps = static_cast<double>(steps_);
  const detail::AdamWScalars scalars{
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
  const auto decayed = static_cast<float>(1.0 - update.learning_rate * config_.weight_decay);
  auto* w = update.weights.data_ptr<float>();
  auto* g = update.gradients.data_ptr<float>();
  auto* m = first_moment_.data_ptr<float>();
  auto* v = second_moment_.data_ptr<float>();
  auto* copy = update.working_copy.defined()
                   ? reinterpret_cast<std::uint16_t*>(update.working_copy.data_ptr<at::BFloat16>())
                   : nullptr;
  const std::uint32_t key = rounding_key(steps_);
  const auto update_range = [&](std::int64_t begin, std::int64_t end, float keep) {
    if (begin == end) return;
    const detail::AdamWExtras extras{
        .copy = copy == nullptr ? nullptr : copy + begin,
        .stochastic = config_.stochastic_rounding,
        .random_key = key,
        .first_element = static_cast<std::uint64_t>(update.first_element + begin),
        .clear_gradients = update.clear_gradients};
    detail::adamw_update(scalars, keep, end - begin, w + begin, g + begin, m + begin, v + begin,
                         extras);
  };
  at::parallel_for(0, size, kGrain, [&](std::int64_t begin, std::int64_t end) {
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

void AdamW::round(const at::Tensor& weights, const at::Tensor& working_copy,
                  std::int64_t first_element) const {
  const std::int64_t size = first_moment_.numel();
  check_flat("weights", weights, at::kFloat, size);
  check_flat("working_copy", working_copy, at::kBFloat16, size);
  const float* from = weights.data_ptr<float>();
  auto* copy = reinterpret_cast<std::uint16_t*>(working_copy.data_ptr<at::BFloat16>());
  at::parallel_for(0, size, kGrain, [&](std::int64_t begin, std::int64_t end) {
    const ops::FlushDenormals flush;
    detail::round_weights(end - begin, from + begin,
                          {.copy = copy + begin,
                           .stochastic = config_.stochastic_rounding,
                           .random_key = rounding_key(steps_),
                           .first_element = static_cast<std::uint64_t>(first_element + begin)});
  });
}

double global_norm(const at::Tensor& flat) {
  if (!flat.defined() || flat.scalar_type() != at::kFloat || !flat.is_contiguous() ||
      !flat.device().is_cpu()) {
    throw_error<ShapeError>("global_norm needs a contiguous CPU f32 tensor");
  }
  constexpr std::int64_t kBlock = 4096;  // elements; part of the definition of the result
  const std::int64_t size = flat.numel();
  const std::int64_t blocks = (size + kBlock - 1) / kBlock;
  const float* values = flat.data_ptr<float>();
  std::vector<double> sums(static_cast<std::size_t>(std::max<std::int64_t>(blocks, 1)));
  at::parallel_for(0, blocks, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      sums[static_cast<std::size_t>(block)] =
          detail::sum_of_squares(values + block * kBlock, std::min(kBlock, size - block * kBlock));
    }
  });
  for (std::size_t count = sums.size(); count > 1; count = (count + 1) / 2) {
    for (std::size_t i = 0; i < count / 2; ++i) {
      sums[i] = sums[2 * i] + sums[2 * i + 1];
    }
    if (count % 2 != 0) {
      sums[count / 2] = sums[count - 1];
    }
  }
  return std::sqrt(sums.front());
}

double clip_scale(double norm, double max_norm) {
  return max_norm > 0.0 && norm > max_norm ? max_norm / norm : 1.0;
}

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/shard_optimizer.h"

#include <c10/util/BFloat16.h>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/ops/cuda/device_scope.h"
#include "trireme/ops/tensor_view.h"
#include "trireme/optim/cuda/kernels.h"
#include "trireme/optim/working_copy.h"

namespace trireme::optim {
namespace {

void check_factor(const at::Tensor& factor, c10::Device device) {
  if (factor.defined() &&
      (factor.scalar_type() != at::kFloat || factor.numel() != 1 || factor.device() != device)) {
    throw_error<ShapeError>("gradient_factor must be one f32 on {}", device.str());
  }
}

}  // namespace

ShardOptimizer::ShardOptimizer(const OptimizerConfig& config, const OptimizerSpace& space)
    : config_(config), shard_(space) {}

void ShardOptimizer::step(const OptimizerUpdate& given) {
  shard_.check(given.pieces, /*with_gradients=*/given.parts == nullptr);
  TRIREME_ASSERT(given.parts == nullptr || works_by_parts(), "{} does not work by parts",
                 config_.name);
  const at::Tensor& factor = given.gradient_factor;
  check_factor(factor, shard_.device());
  ++steps_;
  StepScalars scalars{given.learning_rate, static_cast<float>(given.gradient_scale), steps_};
  if (factor.defined() && factor.is_cpu()) scalars.gradient_scale *= *factor.data_ptr<float>();
  update(given, scalars);
}

detail::UpdateExtras ShardOptimizer::extras_of(const PieceUpdate& piece, std::int64_t begin,
                                               std::int64_t in_piece, bool clear_gradients) const {
  std::uint16_t* copy = nullptr;
  if (piece.working_copy.defined()) {
    copy = reinterpret_cast<std::uint16_t*>(piece.working_copy.data_ptr<at::BFloat16>()) + in_piece;
  }
  return {.copy = copy,
          .stochastic = config_.stochastic_rounding,
          .random_key = rounding_key(steps_),
          .first_element = static_cast<std::uint64_t>(begin),
          .clear_gradients = clear_gradients};
}

void ShardOptimizer::round(std::span<const PieceUpdate> pieces) const {
  shard_.check(pieces, /*with_gradients=*/false);
  if (pieces.empty() || !pieces[0].working_copy.defined()) return;
  if constexpr (ops::kHasCudaKernels) {
    if (shard_.device().is_cuda()) {
      const ops::cuda::DeviceScope scope(shard_.device());
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        const ShardPiece& piece = shard_.pieces()[i];
        cuda::round_weights(piece.count(), pieces[i].weights.data_ptr<float>(),
                            extras_of(pieces[i], piece.begin, 0, false), scope.stream());
      }
      return;
    }
  }
  shard_.for_each_range([&](const ShardRange& range) {
    const PieceUpdate& piece = pieces[range.piece];
    detail::round_weights(range.count(), piece.weights.data_ptr<float>() + range.in_piece,
                          extras_of(piece, range.begin, range.in_piece, false));
  });
}

void ShardOptimizer::take_state(std::span<const OptimizerState>) {}

void ShardOptimizer::set_state(std::span<const OptimizerState> given) {
  std::vector<OptimizerState> own = state();
  if (given.size() != own.size()) {
    throw_error<ShapeError>("the optimizer {} has {} parts of state, {} were given", config_.name,
                            own.size(), given.size());
  }
  const auto described = [](const OptimizerState& part) {
    return part.elementwise ? part.name : part.name + " of " + part.parameters[0];
  };
  for (std::size_t i = 0; i < own.size(); ++i) {
    const at::Tensor& values = given[i].values;
    if (described(given[i]) != described(own[i]) || !values.defined() ||
        values.sizes() != own[i].values.sizes()) {
      throw_error<ShapeError>("part {} of the state of {} is {} [{}], {} was given", i,
                              config_.name, described(own[i]), own[i].values.numel(),
                              described(given[i]));
    }
    if (!own[i].values.is_same(values)) own[i].values.copy_(values);
  }
  take_state(own);
}

}  // namespace trireme::optim

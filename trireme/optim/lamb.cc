// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/lamb.h"

#include <cmath>
#include <vector>

#include "trireme/ops/kernels/tasks.h"
#include "trireme/optim/elementwise.h"
#include "trireme/optim/moment.h"
#include "trireme/optim/parameter_parts.h"
#include "trireme/optim/parameter_sums.h"

namespace trireme::optim {
namespace {

double trust_ratio(const ParameterSums& squares, std::size_t parameter) {
  const double weights = squares.of(parameter, 0), direction = squares.of(parameter, 1);
  return weights > 0.0 && direction > 0.0 ? std::sqrt(weights) / std::sqrt(direction) : 1.0;
}

class Lamb final : public ShardOptimizer {
 public:
  Lamb(const OptimizerConfig& config, const OptimizerSpace& space)
      : ShardOptimizer(config, space),
        group_(space.group),
        parameters_(space.parameters),
        parts_(shard().pieces(), parameters_, kShardBlock, [](const auto&) { return true; }),
        squares_(parameters_, 2),
        first_("first_moment", Moment::Storage::kF32, parts_.elements()),
        second_("second_moment", Moment::Storage::kF32, parts_.elements()) {}

  std::vector<OptimizerState> state() override {
    return {parts_.state_of(first_), parts_.state_of(second_)};
  }

 protected:
  void update(const OptimizerUpdate& update, const StepScalars& scalars) override {
    detail::AdamWScalars s = adam_scalars(config(), {1.0, scalars.gradient_scale, scalars.steps});
    squares_.clear();
    parts_.for_each([&](const ParameterPart& part) { measure(part, update, s); });
    squares_.exchange(group_);
    std::vector<float> steps;
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      steps.push_back(static_cast<float>(scalars.learning_rate * trust_ratio(squares_, p)));
    }
    parts_.for_each(
        [&](const ParameterPart& part) { apply(part, update, s, steps[part.parameter]); });
  }

 private:
  float decay_of(const ParameterPart& part) const {
    return parameters_[part.parameter].decays ? static_cast<float>(*config().weight_decay) : 0.0F;
  }

  void measure(const ParameterPart& part, const OptimizerUpdate& update,
               const detail::AdamWScalars& s) {
    const PieceUpdate& piece = update.pieces[part.piece];
    const float* weights = piece.weights.data_ptr<float>() + part.in_piece;
    auto* direction =
        static_cast<float*>(ops::thread_scratch(ops::Scratch::kOther, kShardBlock * sizeof(float)));
    detail::lamb_direction(s, decay_of(part), part.count, weights,
                           piece.gradients.data_ptr<float>() + part.in_piece,
                           first_.open(part.in_state, part.count, nullptr),
                           second_.open(part.in_state, part.count, nullptr), direction);
    squares_.set(part, {detail::sum_of_squares(weights, part.count),
                        detail::sum_of_squares(direction, part.count)});
  }

  void apply(const ParameterPart& part, const OptimizerUpdate& update,
             const detail::AdamWScalars& s, float step) {
    const PieceUpdate& piece = update.pieces[part.piece];
    detail::lamb_update(s, decay_of(part), step, part.count,
                        piece.weights.data_ptr<float>() + part.in_piece,
                        piece.gradients.data_ptr<float>() + part.in_piece,
                        first_.open(part.in_state, part.count, nullptr),
                        second_.open(part.in_state, part.count, nullptr),
                        extras_of(piece, part.begin, part.in_piece, update.clear_gradients));
  }

  Group* const group_;
  const std::vector<OptimizerParameter> parameters_;
  const ParameterParts parts_;
  ParameterSums squares_;  // of weights, of directions
  Moment first_, second_;
};

}  // namespace

std::unique_ptr<Optimizer> make_lamb(const OptimizerConfig& config, const OptimizerSpace& space) {
  return std::make_unique<Lamb>(config, space);
}

}  // namespace trireme::optim

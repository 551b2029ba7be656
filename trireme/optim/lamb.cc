// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/lamb.h"

#include <cmath>
#include <span>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/optim/elementwise.h"
#include "trireme/optim/moment.h"
#include "trireme/optim/parameter_parts.h"
#include "trireme/optim/tree_sum.h"

namespace trireme::optim {
namespace {

// The sums of squares of weights and directions, one leaf for each block that a parameter touches.
class NormLeaves {
 public:
  explicit NormLeaves(const std::vector<OptimizerParameter>& parameters) {
    for (const OptimizerParameter& parameter : parameters) {
      const FlatEntry& entry = parameter.entry;
      const std::int64_t first = entry.offset / kShardBlock;
      const std::int64_t end = (entry.offset + entry.count + kShardBlock - 1) / kShardBlock;
      ranges_.push_back({first, count_, entry.count == 0 ? 0 : end - first});
      count_ += ranges_.back().count;
    }
  }

  void clear() { sums_.assign(static_cast<std::size_t>(2 * count_), 0.0); }
  void set(const ParameterPart& part, double of_weights, double of_direction) {
    const Leaves& leaves = ranges_[part.parameter];
    const auto leaf = static_cast<std::size_t>(
        2 * (leaves.begin + part.begin / kShardBlock - leaves.first_block));
    sums_[leaf] = of_weights;
    sums_[leaf + 1] = of_direction;
  }
  // Exact: all but one summand of each leaf are zero.
  void exchange(Group& group) { group.all_reduce(buffer_of(std::span(sums_))); }

  // |w| / |r| of a parameter.
  double trust_ratio(std::size_t parameter) const {
    const double weights = norm(parameter, 0), direction = norm(parameter, 1);
    return weights > 0.0 && direction > 0.0 ? weights / direction : 1.0;
  }

 private:
  struct Leaves {
    std::int64_t first_block, begin, count;
  };

  double norm(std::size_t parameter, std::size_t which) const {
    const Leaves& leaves = ranges_[parameter];
    std::vector<double> own;
    for (std::int64_t i = leaves.begin; i < leaves.begin + leaves.count; ++i) {
      own.push_back(sums_[2 * static_cast<std::size_t>(i) + which]);
    }
    return std::sqrt(tree_sum(own));
  }

  std::vector<Leaves> ranges_;  // by parameter
  std::int64_t count_ = 0;
  std::vector<double> sums_;  // of weights, of direction, by leaf
};

class Lamb final : public ShardOptimizer {
 public:
  Lamb(const OptimizerConfig& config, const OptimizerSpace& space)
      : ShardOptimizer(config, space),
        group_(space.group),
        parameters_(space.parameters),
        parts_(shard().pieces(), parameters_, kShardBlock, [](const auto&) { return true; }),
        leaves_(parameters_),
        first_("first_moment", Moment::Storage::kF32, parts_.elements()),
        second_("second_moment", Moment::Storage::kF32, parts_.elements()) {}

  std::vector<OptimizerState> state() override {
    return {{.name = first_.name(), .values = first_.values(), .pieces = parts_.pieces()},
            {.name = second_.name(), .values = second_.values(), .pieces = parts_.pieces()}};
  }

 protected:
  void update(const OptimizerUpdate& update, const StepScalars& scalars) override {
    detail::AdamWScalars s = adam_scalars(config(), {1.0, scalars.gradient_scale, scalars.steps});
    leaves_.clear();
    parts_.for_each([&](const ParameterPart& part) { measure(part, update, s); });
    if (group_ != nullptr) leaves_.exchange(*group_);
    std::vector<float> steps;
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      steps.push_back(static_cast<float>(scalars.learning_rate * leaves_.trust_ratio(p)));
    }
    parts_.for_each([&](const ParameterPart& part) {
      apply(part, update, s, steps[part.parameter]);
    });
  }

 private:
  float decay_of(const ParameterPart& part) const {
    return parameters_[part.parameter].decays ? static_cast<float>(*config().weight_decay) : 0.0F;
  }

  void measure(const ParameterPart& part, const OptimizerUpdate& update,
               const detail::AdamWScalars& s) {
    const PieceUpdate& piece = update.pieces[part.piece];
    const float* weights = piece.weights.data_ptr<float>() + part.in_piece;
    auto* direction = static_cast<float*>(
        ops::thread_scratch(ops::Scratch::kOther, kShardBlock * sizeof(float)));
    detail::lamb_direction(s, decay_of(part), part.count, weights,
                           piece.gradients.data_ptr<float>() + part.in_piece,
                           first_.open(part.in_state, part.count, nullptr),
                           second_.open(part.in_state, part.count, nullptr), direction);
    leaves_.set(part, detail::sum_of_squares(weights, part.count),
                detail::sum_of_squares(direction, part.count));
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
  NormLeaves leaves_;
  Moment first_, second_;
};

}  // namespace

std::unique_ptr<Optimizer> make_lamb(const OptimizerConfig& config, const OptimizerSpace& space) {
  return std::make_unique<Lamb>(config, space);
}

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/muon.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/optim/elementwise.h"
#include "trireme/optim/moment.h"
#include "trireme/optim/orthogonalize.h"
#include "trireme/optim/parameter_parts.h"
#include "trireme/optim/whole_matrices.h"

namespace trireme::optim {
namespace {

bool is_hidden(const OptimizerParameter& parameter) {
  const std::size_t dims = parameter.stack ? 3 : 2;
  return parameter.hidden_matrix && parameter.entry.shape.size() >= dims &&
         parameter.entry.count > 0;
}

bool is_other(const OptimizerParameter& parameter) { return !is_hidden(parameter); }

std::vector<std::size_t> hidden_matrices(const std::vector<OptimizerParameter>& parameters) {
  std::vector<std::size_t> matrices;
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    if (is_hidden(parameters[p])) matrices.push_back(p);
  }
  return matrices;
}

// How many matrices a parameter is, one after the other, and their shape.
struct MatrixShape {
  std::int64_t matrices, rows, columns;
};

MatrixShape shape_of(const OptimizerParameter& parameter) {
  const std::vector<std::int64_t>& shape = parameter.entry.shape;
  const std::int64_t matrices = parameter.stack ? shape[0] : 1;
  const std::int64_t rows = parameter.stack ? shape[1] : shape[0];
  return {matrices, rows, parameter.entry.count / matrices / rows};
}

// Of a step of AdamW with a learning rate of 1: its root mean square.
constexpr double kStepSize = 0.2;

class Muon final : public ShardOptimizer {
 public:
  Muon(const OptimizerConfig& config, const OptimizerSpace& space)
      : ShardOptimizer(config, space),
        parameters_(space.parameters),
        hidden_(shard().pieces(), parameters_, Shard::kRange, is_hidden),
        others_(shard().pieces(), parameters_, Shard::kRange, is_other),
        whole_(space, hidden_matrices(parameters_)),
        momentum_("momentum", Moment::Storage::kF32, hidden_.elements()),
        first_("first_moment", Moment::Storage::kF32, others_.elements()),
        second_("second_moment", Moment::Storage::kF32, others_.elements()) {}

  std::vector<OptimizerState> state() override {
    return {hidden_.state_of(momentum_), others_.state_of(first_), others_.state_of(second_)};
  }

 protected:
  void update(const OptimizerUpdate& update, const StepScalars& scalars) override {
    update_others(update, scalars);
    update_hidden(update, scalars);
  }

 private:
  float kept(const ParameterPart& part, double learning_rate) const {
    const bool decays = parameters_[part.parameter].decays;
    return decays ? kept_by_decay(learning_rate, *config().weight_decay) : 1.0F;
  }

  void update_others(const OptimizerUpdate& update, const StepScalars& scalars) {
    const detail::AdamWScalars s = adam_scalars(config(), scalars);
    others_.for_each([&](const ParameterPart& part) {
      const PieceUpdate& piece = update.pieces[part.piece];
      detail::adamw_update(s, kept(part, scalars.learning_rate), part.count,
                           piece.weights.data_ptr<float>() + part.in_piece,
                           piece.gradients.data_ptr<float>() + part.in_piece,
                           first_.open(part.in_state, part.count, nullptr),
                           second_.open(part.in_state, part.count, nullptr),
                           extras_of(piece, part.begin, part.in_piece, update.clear_gradients));
    });
  }

  void update_hidden(const OptimizerUpdate& update, const StepScalars& scalars) {
    const at::Tensor directions = [&] {
      const MemoryScope scope(MemoryCategory::kWorkspace);
      return at::empty({hidden_.elements()}, at::kFloat);
    }();
    auto* mine = directions.data_ptr<float>();
    const auto momentum = static_cast<float>(*config().momentum);
    hidden_.for_each([&](const ParameterPart& part) {
      detail::nesterov_direction(
          momentum, scalars.gradient_scale, update.clear_gradients, part.count,
          update.pieces[part.piece].gradients.data_ptr<float>() + part.in_piece,
          momentum_.open(part.in_state, part.count, nullptr), mine + part.in_state);
    });
    for (const Matrix& matrix : whole_.bring(mine)) {
      const auto [matrices, rows, columns] = shape_of(parameters_[matrix.parameter]);
      for (std::int64_t m = 0; m < matrices; ++m) {
        detail::orthogonalize(rows, columns, matrix.values + m * rows * columns);
      }
    }
    whole_.give_back(mine);
    hidden_.for_each([&](const ParameterPart& part) {
      const MatrixShape shape = shape_of(parameters_[part.parameter]);
      const double longest = std::sqrt(static_cast<double>(std::max(shape.rows, shape.columns)));
      const PieceUpdate& piece = update.pieces[part.piece];
      detail::apply_direction(kept(part, scalars.learning_rate),
                              static_cast<float>(scalars.learning_rate * kStepSize * longest),
                              part.count, piece.weights.data_ptr<float>() + part.in_piece,
                              mine + part.in_state,
                              extras_of(piece, part.begin, part.in_piece, false));
    });
  }

  const std::vector<OptimizerParameter> parameters_;
  const ParameterParts hidden_, others_;
  WholeMatrices whole_;
  Moment momentum_;        // of hidden matrices
  Moment first_, second_;  // of the others
};

}  // namespace

std::unique_ptr<Optimizer> make_muon(const OptimizerConfig& config, const OptimizerSpace& space) {
  return std::make_unique<Muon>(config, space);
}

}  // namespace trireme::optim

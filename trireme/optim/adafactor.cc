// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/adafactor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/optim/moment.h"
#include "trireme/optim/parameter_parts.h"
#include "trireme/optim/parameter_sums.h"
#include "trireme/optim/shard_optimizer.h"
#include "trireme/optim/whole_matrices.h"

namespace trireme::optim {
namespace {

constexpr double kDecayPower = -0.8;
constexpr double kLargestUpdate = 1.0;   // its root mean square
constexpr std::int64_t kColumns = 1024;  // that a task sums

bool is_matrix(const OptimizerParameter& parameter) {
  return parameter.entry.shape.size() >= 2 && parameter.entry.count > 0;
}

bool is_vector(const OptimizerParameter& parameter) { return !is_matrix(parameter); }

std::vector<std::size_t> matrices_of(const std::vector<OptimizerParameter>& parameters) {
  std::vector<std::size_t> matrices;
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    if (is_matrix(parameters[p])) matrices.push_back(p);
  }
  return matrices;
}

// The means of the rows and the columns of a matrix of squares plus epsilon.
void mean_squares(const Matrix& matrix, float epsilon, float* rows, float* columns) {
  ops::run_tasks(matrix.rows, [&](std::int64_t r) {
    const double sum = detail::sum_of_squares(matrix.values + r * matrix.columns, matrix.columns);
    rows[r] = static_cast<float>(sum / static_cast<double>(matrix.columns)) + epsilon;
  });
  ops::run_ranges(matrix.columns, kColumns, [&](std::int64_t begin, std::int64_t end) {
    double sums[kColumns] = {};
    for (std::int64_t r = 0; r < matrix.rows; ++r) {
      detail::add_squares(matrix.values + r * matrix.columns + begin, end - begin, sums);
    }
    for (std::int64_t c = begin; c < end; ++c) {
      columns[c] = static_cast<float>(sums[c - begin] / static_cast<double>(matrix.rows)) + epsilon;
    }
  });
}

// The running means of the rows and the columns of all matrices, which every rank has.
class Factors {
 public:
  struct Place {
    std::size_t parameter;
    std::int64_t begin, rows, columns;  // rows [begin, begin + rows), then columns
  };

  explicit Factors(const std::vector<OptimizerParameter>& parameters)
      : by_parameter_(parameters.size(), -1) {
    std::int64_t size = 0;
    for (const std::size_t p : matrices_of(parameters)) {
      const FlatEntry& entry = parameters[p].entry;
      const std::int64_t rows = entry.shape[0], columns = entry.count / rows;
      by_parameter_[p] = static_cast<std::int64_t>(places_.size());
      places_.push_back({p, size, rows, columns});
      size += rows + columns;
    }
    const MemoryScope scope(MemoryCategory::kOptimizer);
    means_ = at::zeros({size}, at::kFloat);
  }

  const Place& of(std::size_t parameter) const {
    return places_[static_cast<std::size_t>(by_parameter_[parameter])];
  }
  std::int64_t size() const { return means_.numel(); }

  void add(float beta, float one_minus_beta, const std::vector<float>& means) {
    auto* all = means_.data_ptr<float>();
    detail::combine(beta, all, one_minus_beta, means.data(), size(), all);
  }
  // What a gradient is multiplied with: of each row 1 / sqrt(R / mean(R)), of each column
  // 1 / sqrt(C).
  std::vector<float> inverse_roots() const {
    std::vector<float> roots(static_cast<std::size_t>(size()));
    const auto* means = means_.data_ptr<float>();
    for (const Place& place : places_) {
      const float* own = means + place.begin;
      double sum = 0;
      for (std::int64_t r = 0; r < place.rows; ++r) sum += static_cast<double>(own[r]);
      const double mean = sum / static_cast<double>(place.rows);
      float* to = roots.data() + place.begin;
      for (std::int64_t i = 0; i < place.rows + place.columns; ++i) {
        const double scale = i < place.rows ? mean : 1.0;
        to[i] = static_cast<float>(std::sqrt(scale / static_cast<double>(own[i])));
      }
    }
    return roots;
  }

  void append_state(const std::vector<OptimizerParameter>& parameters,
                    std::vector<OptimizerState>& state) const {
    for (const Place& place : places_) {
      const std::string& name = parameters[place.parameter].entry.name;
      const auto add = [&](const char* what, std::int64_t begin, std::int64_t count) {
        state.push_back({.name = what,
                         .values = means_.narrow(0, begin, count),
                         .elementwise = false,
                         .parameters = {name}});
      };
      add("row_mean", place.begin, place.rows);
      add("column_mean", place.begin + place.rows, place.columns);
    }
  }

 private:
  std::vector<Place> places_;               // by matrix
  std::vector<std::int64_t> by_parameter_;  // -1: no matrix
  at::Tensor means_;
};

// Gradients of some parameters, which become updates.
struct Updates {
  const ParameterParts& parts;
  at::Tensor values;

  explicit Updates(const ParameterParts& parts_in) : parts(parts_in) {
    const MemoryScope scope(MemoryCategory::kWorkspace);
    values = at::empty({parts.elements()}, at::kFloat);
  }
  float* at(const ParameterPart& part) const { return values.data_ptr<float>() + part.in_state; }
};

class Adafactor final : public ShardOptimizer {
 public:
  Adafactor(const OptimizerConfig& config, const OptimizerSpace& space)
      : ShardOptimizer(config, space),
        group_(space.group),
        parameters_(space.parameters),
        matrices_(shard().pieces(), parameters_, kShardBlock, is_matrix),
        vectors_(shard().pieces(), parameters_, kShardBlock, is_vector),
        whole_(space, matrices_of(parameters_)),
        factors_(parameters_),
        squares_(parameters_, 1),
        second_("second_moment", Moment::Storage::kF32, vectors_.elements()),
        of_matrices_("matrix_update_mean", Moment::Storage::kF32, kept(matrices_.elements())),
        of_vectors_("vector_update_mean", Moment::Storage::kF32, kept(vectors_.elements())) {}

  std::vector<OptimizerState> state() override {
    std::vector<OptimizerState> all;
    factors_.append_state(parameters_, all);
    all.push_back(vectors_.state_of(second_));
    if (has_momentum()) {
      all.push_back(matrices_.state_of(of_matrices_));
      all.push_back(vectors_.state_of(of_vectors_));
    }
    return all;
  }

 protected:
  void update(const OptimizerUpdate& update, const StepScalars& scalars) override {
    const double power = std::pow(static_cast<double>(scalars.steps), kDecayPower);
    const auto beta = static_cast<float>(1.0 - power);
    const auto one_minus_beta = static_cast<float>(power);
    const Updates of_matrices = gradients_of(matrices_, update, scalars);
    const Updates of_vectors = gradients_of(vectors_, update, scalars);
    add_factors(of_matrices, beta, one_minus_beta);

    squares_.clear();
    direct_matrices(of_matrices);
    vectors_.for_each([&](const ParameterPart& part) {
      float* values = of_vectors.at(part);
      detail::root_mean_square_direction(beta, one_minus_beta, epsilon(), part.count, values,
                                         second_.open(part.in_state, part.count, nullptr));
      squares_.set(part, {detail::sum_of_squares(values, part.count)});
    });
    squares_.exchange(group_);
    std::vector<float> clips;
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      const auto count = static_cast<double>(std::max<std::int64_t>(1, parameters_[p].entry.count));
      const double size = std::sqrt(squares_.of(p, 0) / count);
      clips.push_back(static_cast<float>(1.0 / std::max(1.0, size / kLargestUpdate)));
    }
    apply(of_matrices, of_matrices_, clips, update, scalars);
    apply(of_vectors, of_vectors_, clips, update, scalars);
  }

 private:
  bool has_momentum() const { return *config().momentum > 0; }
  std::int64_t kept(std::int64_t elements) const { return has_momentum() ? elements : 0; }
  float epsilon() const { return static_cast<float>(*config().epsilon); }

  static Updates gradients_of(const ParameterParts& parts, const OptimizerUpdate& update,
                              const StepScalars& scalars) {
    Updates updates(parts);
    parts.for_each([&](const ParameterPart& part) {
      detail::scaled_gradient(scalars.gradient_scale, update.clear_gradients, part.count,
                              update.pieces[part.piece].gradients.data_ptr<float>() + part.in_piece,
                              updates.at(part));
    });
    return updates;
  }

  void add_factors(const Updates& gradients, float beta, float one_minus_beta) {
    std::vector<float> means(static_cast<std::size_t>(factors_.size()), 0.0F);
    for (const Matrix& matrix : whole_.bring(gradients.values.data_ptr<float>())) {
      float* own = means.data() + factors_.of(matrix.parameter).begin;
      mean_squares(matrix, epsilon(), own, own + matrix.rows);
    }
    whole_.release();
    // Exact: one summand of each is not zero.
    if (group_ != nullptr && !means.empty()) group_->all_reduce(buffer_of(std::span(means)));
    factors_.add(beta, one_minus_beta, means);
  }

  void direct_matrices(const Updates& updates) {
    const std::vector<float> roots = factors_.inverse_roots();
    matrices_.for_each([&](const ParameterPart& part) {
      const Factors::Place& place = factors_.of(part.parameter);
      const float* rows = roots.data() + place.begin;
      const float* columns = rows + place.rows;
      float* values = updates.at(part);
      const std::int64_t begin = part.begin - parameters_[part.parameter].entry.offset;
      for (std::int64_t i = begin; i < begin + part.count;) {
        const std::int64_t row = i / place.columns, column = i % place.columns;
        const std::int64_t end = std::min((row + 1) * place.columns, begin + part.count);
        detail::multiply(rows[row], columns + column, end - i, values + (i - begin));
        i = end;
      }
      squares_.set(part, {detail::sum_of_squares(values, part.count)});
    });
  }

  void apply(const Updates& updates, const Moment& mean, const std::vector<float>& clips,
             const OptimizerUpdate& update, const StepScalars& scalars) {
    const auto momentum = static_cast<float>(*config().momentum);
    const float decayed = kept_by_decay(scalars.learning_rate, *config().weight_decay);
    updates.parts.for_each([&](const ParameterPart& part) {
      const PieceUpdate& piece = update.pieces[part.piece];
      float* values = updates.at(part);
      const float clip = clips[part.parameter];
      detail::combine(clip, values, 0.0F, values, part.count, values);
      if (has_momentum()) {
        detail::running_mean(momentum, part.count, mean.open(part.in_state, part.count, nullptr),
                             values);
      }
      detail::apply_direction(parameters_[part.parameter].decays ? decayed : 1.0F,
                              static_cast<float>(scalars.learning_rate), part.count,
                              piece.weights.data_ptr<float>() + part.in_piece, values,
                              extras_of(piece, part.begin, part.in_piece, false));
    });
  }

  Group* const group_;
  const std::vector<OptimizerParameter> parameters_;
  const ParameterParts matrices_, vectors_;
  WholeMatrices whole_;
  Factors factors_;
  ParameterSums squares_;            // of the updates
  Moment second_;                    // of vectors
  Moment of_matrices_, of_vectors_;  // means of updates; empty without momentum
};

}  // namespace

std::unique_ptr<Optimizer> make_adafactor(const OptimizerConfig& config,
                                          const OptimizerSpace& space) {
  return std::make_unique<Adafactor>(config, space);
}

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowRule: an elementwise optimizer for many small rows, each of which counts its own steps, as the
// rows of embedding tables do. After n steps a row holds the bits that make_optimizer() gives a
// parameter of its size after n steps. Rows decay: they are those of a matrix.
//
//   RowRule rule({.name = "adagrad"});
//   std::vector<float> row((1 + rule.moments().size()) * width);   // weights, then each moment
//   rule.update({{row.data(), gradient, /*steps=*/1}}, width, learning_rate, gradient_scale);
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "trireme/optim/elementwise.h"
#include "trireme/optim/optimizer_config.h"

namespace trireme::optim {

struct RowStep {
  float* weights = nullptr;  // [width], and behind them each moment, [width]; zeros at first
  const float* gradients = nullptr;  // [width]
  std::int64_t steps = 0;            // of this row, this one included
};

// Not thread-safe.
class RowRule {
 public:
  // Throws ConfigError: as OptimizerConfig::validate(); a method that is not elementwise; 8-bit
  // state, whose blocks are of 256 elements.
  explicit RowRule(const OptimizerConfig& config);

  // Names of the moments, in the order in which they lie.
  const std::vector<std::string>& moments() const { return moments_; }

  // One step of each row, in the order given. Denormals must be flushed (ops::FlushDenormals).
  void update(std::span<const RowStep> rows, std::int64_t width, double learning_rate,
              double gradient_scale);

 private:
  using Run = void (RowRule::*)(std::span<const RowStep>, std::int64_t, const StepScalars&);
  static Run run_of(const std::string& name);

  void run_sgd(std::span<const RowStep> rows, std::int64_t width, const StepScalars& scalars);
  void run_adam(std::span<const RowStep> rows, std::int64_t width, const StepScalars& scalars);
  void run_adamw(std::span<const RowStep> rows, std::int64_t width, const StepScalars& scalars);
  void run_lion(std::span<const RowStep> rows, std::int64_t width, const StepScalars& scalars);
  const AdamCorrections& corrections(std::int64_t steps);

  OptimizerConfig config_;
  std::vector<std::string> moments_;
  Run run_;
  std::vector<AdamCorrections> corrections_;  // by steps, as far as rows have come
  AdamCorrections late_;                      // of steps beyond
};

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowUpdate: an elementwise method for many short vectors, each with a count of steps of its own:
// the rows of a sparse table. n updates of a row give the bits that n steps of make_optimizer()
// give a parameter of its size that decays.
//
//   RowUpdate method({.name = "adam"});
//   method.begin({.learning_rate = 1e-3, .gradient_scale = 1.0});
//   for (...) method.apply(width, weights, gradient, state, ++steps);  // state: 2 x width
#pragma once

#include <cstdint>
#include <vector>

#include "trireme/optim/kernels.h"
#include "trireme/optim/method_scalars.h"
#include "trireme/optim/optimizer_config.h"

namespace trireme::optim {

class RowUpdate {
 public:
  // Throws ConfigError: what OptimizerConfig::validate() does; a method whose update of a row needs
  // other rows; 8-bit state.
  explicit RowUpdate(const OptimizerConfig& config);

  // F32 of state for each element: 0, 1 or 2.
  int moments() const { return moments_; }

  struct Scalars {
    double learning_rate = 0;
    double gradient_scale = 1;
  };
  // What holds for the updates that follow.
  void begin(const Scalars& scalars);

  // One update of count weights. state: the moments one after the other, [moments(), count], zeros
  // at first. steps: of this row, this one included. The caller flushes denormals (ops/kernels/
  // tasks.h) if bits are to be those of make_optimizer().
  void apply(std::int64_t count, float* weights, const float* gradients, float* state,
             std::int64_t steps);

 private:
  enum class Method { kSgd, kAdagrad, kAdam, kAdamW, kLion };
  AdamCorrection correction(std::int64_t steps);
  detail::AdamWScalars adam_scalars_at(std::int64_t steps);

  // Constant after construction.
  OptimizerConfig config_;
  Method method_;
  int moments_;
  float decay_;  // as it is added to a gradient

  double learning_rate_ = 0;
  float keep_ = 1;  // what decoupled decay leaves of a weight
  detail::AdamWScalars adam_{};
  detail::SgdScalars sgd_{};
  detail::AdagradScalars adagrad_{};
  detail::LionScalars lion_{};
  std::vector<AdamCorrection> corrections_;  // of the first steps; first is 0: not computed yet
};

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ShardOptimizer: what all methods share: the checks, the count of steps, and what becomes of the
// working copies and the gradients. Internal to the optimizers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trireme/optim/kernels.h"
#include "trireme/optim/method_scalars.h"
#include "trireme/optim/optimizer.h"
#include "trireme/optim/shard.h"

namespace trireme::optim {

class ShardOptimizer : public Optimizer {
 public:
  void step(const OptimizerUpdate& update) final;
  void round(std::span<const PieceUpdate> pieces) const final;
  void set_state(std::span<const OptimizerState> state) final;
  std::int64_t steps() const final { return steps_; }
  void set_steps(std::int64_t steps) final { steps_ = steps; }

 protected:
  // config: with_defaults(). Throws ShapeError.
  ShardOptimizer(const OptimizerConfig& config, const OptimizerSpace& space);

  // What is the method's own. The steps are counted already.
  virtual void update(const OptimizerUpdate& update, const StepScalars& scalars) = 0;
  // state(), filled with other values, becomes the state. Nothing to do where state() is in place.
  virtual void take_state(std::span<const OptimizerState> state);

  const OptimizerConfig& config() const { return config_; }
  const Shard& shard() const { return shard_; }
  // For the elements of a piece from in_piece on: begin is the number of the first.
  detail::UpdateExtras extras_of(const PieceUpdate& piece, std::int64_t begin,
                                 std::int64_t in_piece, bool clear_gradients) const;

 private:
  OptimizerConfig config_;
  Shard shard_;
  std::int64_t steps_ = 0;
};

}  // namespace trireme::optim

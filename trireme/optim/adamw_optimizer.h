// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// AdamW over the pieces of a shard. Internal to make_optimizer().
#pragma once

#include <vector>

#include "trireme/optim/adamw.h"
#include "trireme/optim/optimizer.h"

namespace trireme::optim {

class AdamWOptimizer final : public Optimizer {
 public:
  AdamWOptimizer(const AdamWConfig& config, const OptimizerSpace& space);

  void step(const OptimizerUpdate& update) override;
  void round(std::span<const PieceUpdate> pieces) const override;
  std::vector<OptimizerState> state() override;
  std::int64_t steps() const override { return steps_; }
  void set_steps(std::int64_t steps) override;

 private:
  void check_pieces(std::span<const PieceUpdate> pieces) const;

  std::vector<ShardPiece> pieces_;
  at::Tensor first_moment_;   // of all pieces, one after the other
  at::Tensor second_moment_;
  std::vector<AdamW> updates_;  // by piece
  std::int64_t steps_ = 0;
};

}  // namespace trireme::optim

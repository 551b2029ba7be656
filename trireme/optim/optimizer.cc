// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/optimizer.h"

#include "trireme/comm/group.h"
#include "trireme/optim/adamw_optimizer.h"

namespace trireme::optim {

std::vector<ShardPiece> own_pieces(const OptimizerSpace& space) {
  return space.group == nullptr
             ? shard_pieces(space.segments, 0, 1)
             : shard_pieces(space.segments, space.group->rank(), space.group->size());
}

std::unique_ptr<Optimizer> make_optimizer(const AdamWConfig& config, const OptimizerSpace& space) {
  config.validate();
  return std::make_unique<AdamWOptimizer>(config, space);
}

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/own_weights.h"

#include <ATen/core/grad_mode.h>

#include <utility>

#include "trireme/comm/group.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/parallel/shard/buffer_pool.h"

namespace trireme {
namespace {

at::Tensor part(const at::Tensor& weights, const ShardPiece& piece) {
  return weights.narrow(0, piece.local_begin, piece.count());
}

}  // namespace

OwnWeights::OwnWeights(const at::Tensor& masters, std::vector<ShardPiece> pieces,
                       at::ScalarType dtype, Group& group, const DeviceLink* link)
    : pieces_(std::move(pieces)) {
  const at::NoGradGuard no_grad;
  const MemoryScope scope(MemoryCategory::kWeights);
  computing_ = host_memory(group, dtype, link)(masters.numel());
  computing_.copy_(masters);
  masters_ = dtype == at::kFloat ? computing_ : masters;
}

at::Tensor OwnWeights::computing(std::size_t piece) const {
  return part(computing_, pieces_[piece]);
}

std::vector<WeightStore::Piece> OwnWeights::for_optimizer() const {
  const bool rounded = computing_.scalar_type() != at::kFloat;
  std::vector<WeightStore::Piece> result;
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    result.push_back({part(masters_, pieces_[i]), rounded ? computing(i) : at::Tensor()});
  }
  return result;
}

}  // namespace trireme

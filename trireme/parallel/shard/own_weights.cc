// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/own_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
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

at::Tensor copy_pieces(const ModuleLayout& layout, const std::vector<ShardPiece>& pieces) {
  const at::NoGradGuard no_grad;
  const MemoryScope scope(MemoryCategory::kWeights);
  const at::Tensor result = at::zeros({shard_size(pieces)}, at::TensorOptions().dtype(at::kFloat));
  for (const ShardPiece& piece : pieces) {
    for (std::size_t i = 0; i < layout.entries.size(); ++i) {
      const FlatEntry& entry = layout.entries[i];
      const std::int64_t begin = std::max(entry.offset, piece.begin);
      const std::int64_t end = std::min(entry.offset + entry.count, piece.end);
      if (begin >= end) continue;
      result.narrow(0, piece.local_begin + begin - piece.begin, end - begin)
          .copy_(layout.parameters[i].detach().reshape({-1}).narrow(0, begin - entry.offset,
                                                                    end - begin));
    }
  }
  return result;
}

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

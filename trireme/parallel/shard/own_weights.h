// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// OwnWeights: this rank's pieces of the weights, in host memory: f32 that the optimizer updates,
// and what computes, which collectives (and copies to a device) take from where it is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <vector>

#include "trireme/optim/flat_layout.h"
#include "trireme/parallel/module_layout.h"
#include "trireme/parallel/shard/weight_store.h"

namespace trireme {

class DeviceLink;
class Group;

// f32 values of pieces of the parameters, one piece after the other.
at::Tensor copy_pieces(const ModuleLayout& layout, const std::vector<ShardPiece>& pieces);

// Constant after construction, but for the values.
class OwnWeights {
 public:
  // masters: f32, one piece after the other. dtype: of what computes; in f32 it is the masters, and
  // they move. link: null where the host computes.
  OwnWeights(const at::Tensor& masters, std::vector<ShardPiece> pieces, at::ScalarType dtype,
             Group& group, const DeviceLink* link);

  const std::vector<ShardPiece>& pieces() const { return pieces_; }
  // By piece: what computes.
  at::Tensor computing(std::size_t piece) const;
  std::vector<WeightStore::Piece> for_optimizer() const;

 private:
  const std::vector<ShardPiece> pieces_;
  at::Tensor computing_;
  at::Tensor masters_;
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// PieceParts: what ModelParts ask for, of gradients that lie in pieces of a flat buffer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "trireme/optim/optimizer.h"
#include "trireme/parallel/model_parts.h"
#include "trireme/parallel/module_layout.h"

namespace trireme {

// One thread at a time. All functions are collective over the ranks with parts of this model and
// over shard, the ranks among whom the pieces are cut (null: this rank has all), and block. The
// layout may be another one on ranks with other parts.
class PieceParts {
 public:
  // shard_pieces: the pieces that the functions get. Throws ConfigError for a name that the layout
  // does not have.
  PieceParts(const ModuleLayout& layout, const std::vector<ShardPiece>& shard_pieces,
             ModelParts parts);

  // Gradients of partial parameters become their sums. Throws CommError.
  void sum_partial(std::span<const optim::PieceUpdate> pieces, Group* shard) const;
  // Of the sum of squares of this part's gradients, what other ranks count (collective over shard
  // alone).
  double squares_elsewhere(std::span<const optim::PieceUpdate> pieces, Group* shard) const;
  // The norm over all parts of the model, given that of this one and what of it others count.
  // Throws CommError.
  double whole_norm(double norm, double squares_elsewhere) const;

 private:
  // Where elements that are in a piece lie in a vector of the elements of some parameters.
  struct Run {
    std::size_t piece = 0;
    std::int64_t in_piece = 0;
    std::int64_t in_vector = 0;
    std::int64_t count = 0;
  };
  struct Elements {
    Group* group = nullptr;
    std::int64_t count = 0;
    std::vector<Run> runs = {};
  };

  static Elements find(const ModuleLayout& layout, const std::vector<ShardPiece>& shard_pieces,
                       const std::vector<std::string>& parameters, Group* group);

  const ModelParts parts_;
  std::vector<Elements> partial_;
  Elements elsewhere_;
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StageNorm: the norm of gradients that lie in several flat buffers, on one rank or on the ranks of
// a pipeline.
//
//   const StageNorm norm({&first.layout(), &second.layout()}, names, pp);
//   norm.of({first.gradient_squares(), second.gradient_squares()}, parts_group);
//
// It has the same bits wherever the model is cut: its tree has the blocks of the whole model's
// layout as leaves, first those of parameters of no unit, each beginning at a block, then unit by
// unit (module_layout.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "trireme/parallel/module_layout.h"

namespace trireme {

class Group;

// Of the sum of squares of the gradients of one buffer.
struct GradientSquares {
  // f64, by block of kShardBlock elements of its layout: the leaves of the norm's tree.
  at::Tensor blocks;
  double elsewhere = 0;  // what of it ranks with other parts of the model count (ModelParts)
};

// Not thread-safe.
class StageNorm {
 public:
  // own: of this rank's buffers. names: of all parameters of the model, in its order. group: the
  // ranks that have buffers of the model; null: this one alone. Collective, blocking. Throws
  // CommError.
  StageNorm(const std::vector<const ModuleLayout*>& own, const std::vector<std::string>& names,
            Group* group);

  // Of the gradients of all buffers, the same bits on all ranks. squares: of this rank's. parts:
  // ranks that have the same buffers of other parts of the model; null: none. Collective over both
  // groups, blocking: 8 bytes for each block. Throws CommError.
  double of(std::span<const GradientSquares> squares, Group* parts) const;

 private:
  // A run of blocks of one buffer, and where it lies in the row of all.
  struct BlockRun {
    std::size_t buffer = 0;
    std::int64_t begin = 0, count = 0, in_row = 0;
  };

  Group* group_;
  std::vector<BlockRun> runs_;
  std::int64_t row_size_ = 0;  // blocks
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Optimizer: one update of the weights that this rank holds, whatever share of the model that is.
//
//   const auto optimizer = optim::make_optimizer(config, space);
//   optimizer->step({.pieces = pieces, .learning_rate = 3e-4, .gradient_scale = 1.0 / 8});
//
// Weights and gradients are f32 and flat (flat_layout.h). A rank updates the pieces of its shard
// and keeps state for these alone; without a group it holds everything. The result does not depend
// on how the buffer is cut, bit for bit, nor on threads or the width of vector units.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/optim/adamw.h"
#include "trireme/optim/flat_layout.h"

namespace trireme {
class Group;
}

namespace trireme::optim {

// A parameter in the flat buffer, as an optimizer sees it.
struct OptimizerParameter {
  FlatEntry entry;
  bool decays = false;  // weight decay: matrices and embeddings, not norms and biases
};

// What an optimizer works on.
struct OptimizerSpace {
  std::vector<OptimizerParameter> parameters;  // of the whole buffer, ascending
  std::vector<FlatSegment> segments;           // the whole buffer
  Group* group = nullptr;  // among whose ranks the segments are cut (shard_pieces()); null: not cut
  c10::Device device = at::kCPU;
};

// The buffers of one piece: flat, contiguous, on the device of the space.
struct PieceUpdate {
  at::Tensor weights;            // f32 [count]
  at::Tensor gradients;          // f32 [count]
  at::Tensor working_copy = {};  // undefined, or bf16 [count]: receives the rounded weights
};

struct OptimizerUpdate {
  std::span<const PieceUpdate> pieces;  // in the order of the segments; all have a copy, or none
  double learning_rate = 0;
  double gradient_scale = 1;     // gradients are multiplied by it first: clipping, averaging
  bool clear_gradients = false;  // leave zeros, for the sums of the next step
};

// A part of the state, as checkpoints keep it. Written in place on load.
struct OptimizerState {
  std::string name;   // "first_moment", ...
  at::Tensor values;  // f32 [shard_size], in the order of the pieces
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // One update. Counts the step. Blocks on the CPU; on a CUDA device the work is queued. Throws
  // ShapeError.
  virtual void step(const OptimizerUpdate& update) = 0;
  // The working copies of weights as the last step wrote them: after loading a checkpoint.
  // Gradients are not looked at.
  virtual void round(std::span<const PieceUpdate> pieces) const = 0;
  virtual std::vector<OptimizerState> state() = 0;
  virtual std::int64_t steps() const = 0;
  virtual void set_steps(std::int64_t steps) = 0;
};

// The pieces of the rank that has the space.
std::vector<ShardPiece> own_pieces(const OptimizerSpace& space);

// Moves no bytes; the group must outlive the optimizer. All ranks give the same config and space.
// Throws ConfigError; ShapeError for a device without kernels for it.
std::unique_ptr<Optimizer> make_optimizer(const AdamWConfig& config, const OptimizerSpace& space);

}  // namespace trireme::optim

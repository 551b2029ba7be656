// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Optimizer: one update of the weights that this rank holds, whatever share of the model that is.
//
//   const auto optimizer = optim::make_optimizer({.name = "lion"}, space);
//   optimizer->step({.pieces = pieces, .learning_rate = 3e-4, .gradient_scale = 1.0 / 8});
//
// Weights and gradients are f32 and flat (flat_layout.h). A rank updates the pieces of its shard
// and keeps state for these alone; without a group it holds everything. The result does not depend
// on how the buffer is cut, bit for bit, nor on threads or the width of vector units.
//
//   elementwise        sgd, adagrad, adam, adamw, lion
//   norms of parameters  lamb: sums over blocks travel, 8 bytes for each block
//   whole matrices     muon, adafactor: a matrix is brought together on one rank, which computes
//                      its update; the matrices are dealt out among the ranks by their size
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/optim/flat_layout.h"
#include "trireme/optim/optimizer_config.h"

namespace trireme {
class Group;
}

namespace trireme::optim {

// A parameter in the flat buffer, as an optimizer sees it.
struct OptimizerParameter {
  FlatEntry entry;
  bool decays = false;  // weight decay: matrices and embeddings, not norms and biases
  // Muon: a hidden matrix. Embeddings, heads, norms and biases are AdamW's there.
  bool hidden_matrix = false;
  // Its first dim counts parameters of the other dims, as of experts; each is one by itself. Muon
  // minds; methods that keep something for a whole parameter (LAMB, Adafactor) take it as one.
  bool stack = false;
  // Of a larger one, whose rest other ranks have: only methods that need an element's own values.
  bool is_part = false;
};

// What an optimizer works on.
struct OptimizerSpace {
  std::vector<OptimizerParameter> parameters = {};  // of the whole buffer, ascending
  std::vector<FlatSegment> segments = {};           // the whole buffer
  // Among whose ranks the segments are cut (shard_pieces()). Null: they are not, each is a piece,
  // and the last may end anywhere.
  Group* group = nullptr;
  c10::Device device = at::kCPU;
};

// The buffers of one piece: flat, contiguous, on the device of the space.
struct PieceUpdate {
  at::Tensor weights = {};       // f32 [count]
  at::Tensor gradients = {};     // f32 [count]
  at::Tensor working_copy = {};  // undefined, or bf16 [count]: receives the rounded weights
};

// What is done around the update of each part of the pieces, while it lies in a core's caches: for
// who would pass over memory before and after step() otherwise. Called on the pool's threads, once
// for each part; begin and end count in the piece.
class PartWork {
 public:
  virtual ~PartWork() = default;
  // The part's gradients, f32 [end - begin], until done(). PieceUpdate's are not looked at.
  virtual float* gradients(std::size_t piece, std::int64_t begin, std::int64_t end) = 0;
  // Its weights are updated.
  virtual void done(std::size_t piece, std::int64_t begin, std::int64_t end) = 0;
};

struct OptimizerUpdate {
  std::span<const PieceUpdate> pieces;  // in the order of the segments; all have a copy, or none
  double learning_rate = 0;
  double gradient_scale = 1;     // gradients are multiplied by it first: clipping, averaging
  bool clear_gradients = false;  // leave zeros, for the sums of the next step
  // Undefined, or one f32 on the device of the space: multiplies gradient_scale. What clips by a
  // norm that is not on the host (gradient_norm.h).
  at::Tensor gradient_factor = {};
  // Null, or where works_by_parts().
  PartWork* parts = nullptr;
};

// A part of the state, as checkpoints keep it.
struct OptimizerState {
  std::string name;   // "first_moment", "row_mean", ...
  at::Tensor values;  // f32, contiguous
  // Elementwise: values for the elements in these pieces of the flat buffer, this rank's shard or a
  // part of it. Otherwise the values belong to the one parameter named, and every rank has them.
  bool elementwise = true;
  std::vector<ShardPiece> pieces = {};
  std::vector<std::string> parameters = {};  // that have such values; the same on all ranks
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // One update. Counts the step. Collective over the group for lamb, adafactor and muon. Blocks on
  // the CPU; on a CUDA device the work is queued. Throws ShapeError.
  virtual void step(const OptimizerUpdate& update) = 0;
  // An elementwise method on the CPU: step() takes a PartWork.
  virtual bool works_by_parts() const { return false; }
  // The working copies of weights as the last step wrote them: after loading a checkpoint.
  // Gradients are not looked at. Throws ShapeError.
  virtual void round(std::span<const PieceUpdate> pieces) const = 0;
  // F32 state as it is, in place; 8-bit state as f32 values in memory of their own, from which
  // set_state() makes the same codes.
  virtual std::vector<OptimizerState> state() = 0;
  // Takes what state() gave, with other values: const auto all = state(), fill all[i].values,
  // set_state(all). Throws ShapeError unless names, parameters and sizes are those of state().
  virtual void set_state(std::span<const OptimizerState> state) = 0;
  virtual std::int64_t steps() const = 0;
  virtual void set_steps(std::int64_t steps) = 0;
};

// Moves no bytes; the group must outlive the optimizer. All ranks give the same config and space.
// Throws ConfigError as OptimizerConfig::validate() does; ShapeError for a device without kernels
// for the method: on CUDA devices there is adamw with f32 state.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config,
                                          const OptimizerSpace& space);

// Elements of a model by how methods treat them.
struct StateElements {
  std::int64_t hidden_matrices = 0;
  std::int64_t other_matrices = 0;    // embeddings and heads
  std::int64_t vectors = 0;           // norms and biases
  std::int64_t rows_and_columns = 0;  // of all matrices: the sum of rows + columns
};

// Bytes of state of those elements. Pure. Throws ConfigError as OptimizerConfig::validate() does.
std::int64_t optimizer_state_bytes(const OptimizerConfig& config, const StateElements& elements);
// What every rank has besides, however the elements are shared: adafactor's means.
std::int64_t replicated_state_bytes(const OptimizerConfig& config, const StateElements& elements);

}  // namespace trireme::optim

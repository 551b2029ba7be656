// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Optimizer: one update of the weights that this rank holds, whatever share of the model that is.
//
//   const auto optimizer = optim::make_optimizer(config, space);  // "adamw", "muon", ...
//   optimizer->step({.pieces = pieces, .learning_rate = 3e-4, .gradient_scale = 1.0 / 8});
//
// Weights and gradients are f32 and flat (flat_layout.h). A rank updates the pieces of its shard
// and keeps state for these alone; without a group it holds everything. The result does not depend
// on how the buffer is cut, bit for bit, nor on threads or the width of vector units.
//
//   elementwise        sgd, adam, adamw, lion
//   norms of parameters  lamb: sums over blocks travel, 8 bytes for each block
//   whole matrices     muon, adafactor: a matrix is brought together on one rank, which computes
//                      its update; the matrices are dealt out among the ranks by their size
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/base/config.h"
#include "trireme/optim/flat_layout.h"

namespace trireme {
class Group;
}

namespace trireme::optim {

struct OptimizerConfig {
  std::string name = "adamw";  // sgd, adam, adamw, lamb, lion, adafactor, muon
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  std::string state = "f32";  // or "8bit": moments in blocks of 256 codes of a byte
  // Of the bf16 working copy. Rounded to nearest, changes below half a bf16 step are not seen by
  // the next forward pass: a model learns visibly slower (docs/compute.md).
  bool stochastic_rounding = true;

  void visit(ConfigFields& f);
  void validate() const;  // throws ConfigError with the value and its range
};

// A parameter in the flat buffer, as an optimizer sees it.
struct OptimizerParameter {
  FlatEntry entry;
  bool decays = false;  // weight decay: matrices and embeddings, not norms and biases
  // Muon: a hidden matrix. Embeddings, heads, norms and biases are AdamW's there.
  bool hidden_matrix = false;
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
  std::string name;   // "first_moment", "row_mean", ...
  at::Tensor values;  // elementwise: f32 [shard_size], in the order of the pieces; 8-bit state: as
                      // it is, u8 codes [shard_size] and f32 scales [shard_size / 256]
  // Not elementwise: the name of the parameter that it belongs to; this rank keeps it. Empty
  // otherwise.
  std::string parameter;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // One update. Counts the step. Collective over the group for lamb, adafactor and muon. Blocks on
  // the CPU; on a CUDA device the work is queued. Throws ShapeError.
  virtual void step(const OptimizerUpdate& update) = 0;
  // The working copies of weights as the last step wrote them: after loading a checkpoint. Gradients
  // are not looked at.
  virtual void round(std::span<const PieceUpdate> pieces) const = 0;
  virtual std::vector<OptimizerState> state() = 0;
  virtual std::int64_t steps() const = 0;
  virtual void set_steps(std::int64_t steps) = 0;
};

// Moves no bytes; the group must outlive the optimizer. All ranks give the same config and space.
// Throws ConfigError: unknown name, an option that the method does not have (8-bit lamb); ShapeError
// for a device without kernels for it.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config,
                                          const OptimizerSpace& space);

}  // namespace trireme::optim

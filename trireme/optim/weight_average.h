// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// WeightAverage: an exponential moving average of weights (Polyak averaging), which generalises
// better than the last step's weights and costs one pass over memory a step.
//
//   optim::WeightAverage average(0.999, sharded.pieces());
//   for (...) {
//     sharded.step(*optimizer, rate);
//     average.update(sharded.pieces());
//   }
//   average.swap(sharded.pieces());  // the model is the average, until swapped back
//   sharded.publish_weights(optimizer.get());
//
// After update t, counted from 0, average += (1 - d) x (weights - average) in f32, with
// d = min(decay, (1 + t) / (10 + t)): the first updates follow the weights closely, so that the
// start, which is far from everything, is soon forgotten.
//
// A rank averages the pieces that it holds, like the optimizer's state; no bytes travel. Each
// element's bits depend on its own weights alone, not on how the buffer is cut, on threads or on
// the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "trireme/optim/optimizer.h"

namespace trireme::optim {

// Not thread-safe.
class WeightAverage {
 public:
  // The average starts as the weights of pieces are, f32. Takes 4 bytes for each element. Throws
  // ConfigError unless 0 < decay < 1, ShapeError for weights that are not f32.
  WeightAverage(double decay, std::span<const PieceUpdate> pieces);

  // Takes the weights of one more step. pieces: those of the constructor, in their order. Throws
  // ShapeError for others.
  void update(std::span<const PieceUpdate> pieces);
  // Exchanges average and weights, element by element; a second call exchanges them back, bit for
  // bit. What computes with the weights has to be told (ShardedModel::publish_weights()); update()
  // must wait until they are back. Throws ShapeError for other pieces.
  void swap(std::span<const PieceUpdate> pieces);

  bool swapped() const { return swapped_; }

  // The average, f32 [elements of the pieces], one piece after the other, as OptimizerState has
  // them: in place, for checkpoints.
  const at::Tensor& values() const { return values_; }
  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }

 private:
  double decay_;  // constant after construction
  at::Tensor values_;
  std::int64_t updates_ = 0;
  bool swapped_ = false;
};

}  // namespace trireme::optim

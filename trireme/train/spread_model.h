// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// SpreadModel: a module and its optimizer as a strategy has spread them over ranks; what Model
// (model.h) trains.
//
//   spread->begin_step();
//   for (const std::int64_t m : spread->micro_batches()) {
//     const at::Tensor loss = spread->forward([&] { return loss_of(m); });
//     spread->backward(loss, weight_of(m));
//   }
//   spread->finish_step();
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

// Not thread-safe. All ranks call everything in the same order.
class SpreadModel {
 public:
  virtual ~SpreadModel() = default;

  // Of a step, over all ranks, and the numbers of this rank's.
  virtual std::int64_t num_micro_batches() const = 0;
  virtual const std::vector<std::int64_t>& micro_batches() const = 0;

  // f's result; the weights are there while it runs. With gradients enabled, backward() follows
  // before the next forward().
  virtual at::Tensor forward(const std::function<at::Tensor()>& f) = 0;
  virtual void begin_step() = 0;
  // One call for each of micro_batches(). weight: what the loss, a mean, counts for in the step's.
  virtual void backward(const at::Tensor& loss, double weight) = 0;
  // One update of the weights. Blocking. Throws CommError.
  virtual void finish_step() = 0;

  using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
  // Parameters and buffers, whole, by name: on rank 0, the others may get nothing. Blocking.
  virtual NamedTensors gather_weights() = 0;
  // Weights become rank 0's values, of the names and shapes of gather_weights(); those of other
  // ranks are not looked at. Blocking.
  virtual void set_weights(const NamedTensors& values) = 0;
  // The last call: the module has its parameters whole again, on all ranks. Blocking.
  virtual void give_back() = 0;
};

}  // namespace trireme

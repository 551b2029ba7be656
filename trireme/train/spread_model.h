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
//   spread->finish_gradients(losses);
//   spread->finish_step(optim::StepVerdict::kApply);
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trireme/optim/gradient_guard.h"
#include "trireme/train/worker_sums.h"

namespace trireme {

// Not thread-safe. All ranks call everything in the same order. Where each goes its own way (see
// WorkerSums), what is said of all ranks holds of each alone.
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
  // Gradients become the mean over the step, by weight, on all ranks. extras, as many on all, may
  // be none, become their sums as WorkerSums has them. Blocking. Throws CommError.
  virtual void finish_gradients(std::vector<double>& extras) = 0;
  // Another worker has ended this step already, since this one was late, with that verdict: what
  // this one's own would be is not known.
  virtual std::optional<optim::StepVerdict> settled() { return std::nullopt; }
  // Of that mean, the same bits on all ranks. Blocking.
  virtual double gradient_norm() = 0;
  // kApply: one update of the weights, and of their average. Others: both and the optimizer stay as
  // they are, the gradients are dropped. The same verdict on all ranks. Blocking.
  virtual void finish_step(optim::StepVerdict verdict) = 0;
  // True: the average stands in the place of the weights, for everything but training. False: the
  // weights are back. Nothing happens where that is so already, or without an average. Blocking.
  virtual void use_average(bool average) = 0;

  using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
  // Parameters and buffers, whole, by name: on rank 0, the others may get nothing. What stands in
  // the place of the weights. Blocking.
  virtual NamedTensors gather_weights() = 0;
  // Weights become rank 0's values, of the names and shapes of gather_weights(); those of other
  // ranks are not looked at, unless each goes its own way. The average starts there, too. Blocking.
  virtual void set_weights(const NamedTensors& values) = 0;
  virtual WorkerSums& sums() = 0;
  // The last call: the module has its parameters whole again, on all ranks. Blocking.
  virtual void give_back() = 0;
};

}  // namespace trireme

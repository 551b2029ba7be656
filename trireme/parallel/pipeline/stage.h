// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Stage: a part of a model as a pipeline's rank computes it, one micro-batch at a time. What
// PipelineExecutor calls; pipeline.h makes them for a torch::nn::Sequential.
//
//   Stage middle{.forward = [&](std::int64_t m, const std::vector<at::Tensor>& inputs) {
//     return StageOutput{.activations = {net->forward(inputs[0])}};
//   }};
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace trireme {

// What a stage makes of a micro-batch.
struct StageOutput {
  // What the next stage gets, at most kMostActivations; none of the last. On the CPU.
  std::vector<at::Tensor> activations = {};
  // A scalar of the stage's own that is part of what is trained for: the last one's loss, what
  // experts of a middle one add. Undefined: none.
  at::Tensor loss = {};
  double weight = 1;  // what it counts for: times its gradient
};

inline constexpr std::size_t kMostActivations = 4;

// Which gradients a pass makes.
enum class StagePass : std::uint8_t {
  kWhole,    // of inputs and parameters
  kInputs,   // of inputs; those of parameters come later
  kWeights,  // of parameters
};

// All are called on the thread of PipelineExecutor::run(). What they throw ends the run.
struct Stage {
  // inputs: none of the first stage, else what the stage before made, leaves that require a
  // gradient where gradients are enabled and they can have one.
  std::function<StageOutput(std::int64_t micro_batch, const std::vector<at::Tensor>& inputs)>
      forward;
  // Calls f, in which the gradients of the pass are computed; those of parameters are added to
  // grad(). kWhole and kWeights come in the order of micro-batches. Empty: f().
  std::function<void(std::int64_t micro_batch, StagePass pass, const std::function<void()>& f)>
      run_pass = {};
  // Where the last stage has a matrix of which the first one has a copy. Of the first: the
  // gradients that its last kWhole or kInputs pass has made for the copy, of the same shapes for
  // all micro-batches. Of the last: adds them, in the order of micro-batches.
  std::function<std::vector<at::Tensor>(std::int64_t micro_batch)> take_tied = {};
  std::function<void(std::int64_t micro_batch, const std::vector<at::Tensor>& gradients)> add_tied =
      {};
  // UNSHARD (true) and RESHARD (false). Empty: nothing.
  std::function<void(bool held)> hold_weights = {};
};

}  // namespace trireme

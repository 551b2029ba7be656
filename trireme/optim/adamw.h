// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// AdamW over flat f32 buffers (Loshchilov and Hutter 2019, algorithm 2; bias-corrected as in
// torch.optim.AdamW).
//
//   optim::AdamW adamw({.beta1 = 0.9}, flat_size, decay_ranges);
//   adamw.step({.weights = weights, .gradients = gradients, .learning_rate = 3e-4});
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "trireme/base/config.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/optim/kernels.h"

namespace trireme::optim {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  // Of the bf16 working copy. Rounded to nearest, changes below half a bf16 step are not seen by
  // the next forward pass: a model learns visibly slower (docs/compute.md).
  bool stochastic_rounding = true;

  void visit(ConfigFields& f);
  void validate() const;  // throws ConfigError with the value and its range
};

// Elements [begin, end) of the flat buffers that decay (matrices and embeddings; norms and biases
// do not).
struct DecayRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// One update. Buffers: flat, contiguous, of the size and on the device that AdamW was made for.
struct AdamWUpdate {
  at::Tensor weights;    // f32
  at::Tensor gradients;  // f32
  double learning_rate = 0;
  double gradient_scale = 1;       // gradients are multiplied by it first: clipping, averaging
  at::Tensor working_copy = {};    // undefined, or bf16: receives the rounded weights
  bool clear_gradients = false;    // leave zeros, for the sums of the next step
  std::int64_t first_element = 0;  // number of the first element in an unsharded buffer
  at::Tensor gradient_factor =
      {};  // undefined, or one f32 on the device: multiplies gradient_scale
};

class AdamW {
 public:
  // ranges ascending and disjoint. State: two f32 buffers of size elements, zero, on the device:
  // the CPU, or a CUDA device in a build with kernels for it. Throws ShapeError for another one.
  AdamW(const AdamWConfig& config, std::int64_t size, std::vector<DecayRange> ranges,
        c10::Device device = at::kCPU);

  // The same with state that lies elsewhere: f32 [size] each, contiguous, on one device.
  AdamW(const AdamWConfig& config, at::Tensor first_moment, at::Tensor second_moment,
        std::vector<DecayRange> ranges);

  // One update in one pass over memory, elementwise: any split of the buffers gives the same bits,
  // and so does every device. Blocks on the CPU; is queued on the current stream of a CUDA device.
  // Counts the step. Throws ShapeError.
  void step(const AdamWUpdate& update);
  // The working copy of weights as the last step wrote it: after loading a checkpoint. Both [size].
  void round(const at::Tensor& weights, const at::Tensor& working_copy,
             std::int64_t first_element = 0) const;

  // State for checkpoints; written in place on load.
  at::Tensor first_moment() const { return first_moment_; }
  at::Tensor second_moment() const { return second_moment_; }
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  void check_flat(const char* what, const at::Tensor& tensor, at::ScalarType dtype) const;
  detail::AdamWScalars scalars_of(const AdamWUpdate& update) const;
  detail::AdamWExtras extras_of(const at::Tensor& working_copy, std::int64_t first_element) const;
  void step_on_cpu(const AdamWUpdate& update);
  void step_on_cuda(const AdamWUpdate& update);

  AdamWConfig config_;
  std::vector<DecayRange> ranges_;
  at::Tensor range_bounds_;  // begin, end, begin, end, ..., i64 on the device; CUDA only
  at::Tensor first_moment_;
  at::Tensor second_moment_;
  std::int64_t steps_ = 0;
};

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// AdamW over flat f32 buffers (Loshchilov and Hutter 2019, algorithm 2; bias-corrected as in
// torch.optim.AdamW).
//
//   optim::AdamW adamw({.beta1 = 0.9}, flat_size, decay_ranges);
//   adamw.step(weights, gradients, learning_rate, gradient_scale);
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "trireme/base/config.h"

namespace trireme::optim {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;

  void visit(ConfigFields& f);
  void validate() const;  // throws ConfigError with the value and its range
};

// Elements [begin, end) of the flat buffers that decay (matrices and embeddings; norms and biases
// do not).
struct DecayRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

class AdamW {
 public:
  // ranges ascending and disjoint. State: two f32 buffers of size elements, zero.
  AdamW(const AdamWConfig& config, std::int64_t size, std::vector<DecayRange> ranges);

  // One update in one pass, elementwise (any split of the buffers gives the same bits). weights,
  // gradients: f32 [size], contiguous, CPU. Gradients are multiplied by gradient_scale first
  // (clipping, averaging). working_copy: undefined, or bf16 [size] that receives the rounded
  // weights. Counts the step.
  void step(const at::Tensor& weights, const at::Tensor& gradients, double learning_rate,
            double gradient_scale, const at::Tensor& working_copy);

  // State for checkpoints; written in place on load.
  at::Tensor first_moment() const { return first_moment_; }
  at::Tensor second_moment() const { return second_moment_; }
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  AdamWConfig config_;
  std::vector<DecayRange> ranges_;
  at::Tensor first_moment_;
  at::Tensor second_moment_;
  std::int64_t steps_ = 0;
};

// Square root of the sum of squares of a flat f32 tensor: f64 sums over fixed blocks, added in one
// fixed binary tree, so the bits depend neither on threads nor on vector units' width.
double global_norm(const at::Tensor& flat);

// The factor that brings a gradient of this norm down to max_norm; 1 when it is shorter already, or
// when max_norm is 0 (no clipping).
double clip_scale(double norm, double max_norm);

}  // namespace trireme::optim

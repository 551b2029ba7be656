// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Recompute: what a model computes a second time in the backward pass, instead of keeping it from
// the forward pass. Memory for time; no bit of a loss or a gradient depends on it.
#pragma once

namespace trireme::nn {

enum class Recompute {
  kNone,
  // The MLPs' hidden values (ops/linear.h): a pass over memory for each block.
  kActivations,
  // Every block (ops/checkpoint.h), of which only the residual stream before it is kept: one more
  // forward pass.
  kBlocks,
};

}  // namespace trireme::nn

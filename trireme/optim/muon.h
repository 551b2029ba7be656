// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Muon (Jordan et al. 2024): hidden matrices step along their orthogonalized momentum; everything
// else is AdamW's. Internal to the optimizers.
//
//   momentum   m = momentum m + g, direction d = g + momentum m             in the shard
//   direction  O = orthogonalize(d)                                         of whole matrices
//   step       w = w (1 - lr decay) - lr 0.2 sqrt(max(rows, columns)) O
//
// The factor makes the step as long as AdamW's usually is (Liu et al. 2025, "Muon is scalable for
// LLM training", section 2.2), so that one learning rate and one decay serve both. Matrices of more
// dims count as [first dim, rest]; of a stack (OptimizerParameter) each matrix by itself.
//
// What travels with shards: the directions of the hidden matrices to their owners, and what becomes
// of them back: 8 (N-1)/N bytes an element of those, among N ranks.
#pragma once

#include <memory>

#include "trireme/optim/optimizer.h"

namespace trireme::optim {

// config: with_defaults(). Collective steps.
std::unique_ptr<Optimizer> make_muon(const OptimizerConfig& config, const OptimizerSpace& space);

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// LAMB (You et al. 2020, "Large Batch Optimization for Deep Learning", algorithm 2): Adam's
// direction, with each parameter's step as long as a share of the parameter. Internal to the
// optimizers.
//
//   direction  r = m' / (sqrt(v') + epsilon) + weight_decay w     m', v': Adam's moments, corrected
//   step       w -= learning rate  |w| / |r|  r                   for each parameter; 1 where one
//   is 0
//
// The norms of a parameter are made of the sums of squares over the blocks of the flat buffer, cut
// at its edges, in f64: a rank finds those of its blocks, the ranks exchange them (16 bytes for
// 4096 elements), and each adds them in one tree. So the bits do not depend on who holds what.
#pragma once

#include <memory>

#include "trireme/optim/optimizer.h"

namespace trireme::optim {

// config: with_defaults(). Collective steps.
std::unique_ptr<Optimizer> make_lamb(const OptimizerConfig& config, const OptimizerSpace& space);

}  // namespace trireme::optim

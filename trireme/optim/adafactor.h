// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Adafactor (Shazeer and Stern 2018, algorithms 4 and 5): the running mean of a matrix's squared
// gradient is kept as the means of its rows and of its columns. Internal to the optimizers.
//
//   beta    1 - t^-0.8 at step t
//   R, C    means of the rows, of the columns of g^2 + epsilon, their running means with beta
//   u       g / sqrt(R C / mean(R)); a vector keeps its squares whole: g / sqrt(v)
//   clip    u / max(1, rms(u))
//   step    w = w (1 - lr decay) - lr u, or with momentum, the running mean of u
//
// The learning rate is the schedule's: the paper's relative step size, and its scaling by the size
// of the parameter, are not applied. Matrices of more dims count as [first dim, rest].
//
// What travels with shards: the gradients of matrices to their owners, 4 (N-1)/N bytes an element
// among N ranks, and R and C of all matrices back.
#pragma once

#include <memory>

#include "trireme/optim/optimizer.h"

namespace trireme::optim {

// config: with_defaults(). Collective steps.
std::unique_ptr<Optimizer> make_adafactor(const OptimizerConfig& config,
                                          const OptimizerSpace& space);

}  // namespace trireme::optim

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The state of all dense ranges of a job (ps/worker.h) as one: what a checkpoint holds, from and to
// the bytes of each range.
//
//   const WholeState now = gather_states(worker);         // saved: now.weights, now.optimizer
//   WholeState state = zero_state(layout);                // loaded: fill it, then
//   const auto bytes = range_states(layout, state);
//   worker.wait(worker.init_states(bytes));
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trireme/optim/optimizer.h"
#include "trireme/ps/job_layout.h"
#include "trireme/ps/worker.h"

namespace trireme {

struct WholeState {
  std::int64_t steps = 0;  // of the optimizer
  at::Tensor weights;      // f32 [layout.dense.size]
  // As an optimizer over the whole buffer has it: values of elementwise parts are
  // [layout.dense.size].
  std::vector<optim::OptimizerState> optimizer;
};

// Of a job before its first step, all zeros.
WholeState zero_state(const ps::JobLayout& layout);
// As of the worker's step; with consistency sync that is one moment, otherwise each range is of a
// moment of its own, and steps those of the range that has most. Blocking. Throws as ps::Worker
// does.
WholeState gather_states(ps::Worker& worker);
// The same steps, of the first range.
std::int64_t optimizer_steps(ps::Worker& worker);
// By range, for Worker::init_states().
std::vector<std::vector<std::byte>> range_states(const ps::JobLayout& layout,
                                                 const WholeState& state);

}  // namespace trireme

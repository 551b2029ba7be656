// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <ATen/Parallel.h>

#include "trireme/ops/threads.h"

namespace trireme::testing {

// The number of compute threads, from construction to destruction.
class ComputeThreads {
 public:
  explicit ComputeThreads(int threads) : before_(at::get_num_threads()) {
    set_compute_threads({.threads = threads});
  }
  ~ComputeThreads() { set_compute_threads({.threads = before_}); }
  ComputeThreads(const ComputeThreads&) = delete;
  ComputeThreads& operator=(const ComputeThreads&) = delete;

 private:
  int before_;
};

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/cuda/launch_error.h"

#include "trireme/base/error.h"

namespace trireme::ops::cuda::detail {

void throw_launch_error(const char* kernel, const char* reason) {
  throw_error<Error>(
      "the CUDA kernel {} was not started: {}; if an earlier kernel failed, CUDA says so here "
      "(CUDA_LAUNCH_BLOCKING=1 shows which)",
      kernel, reason);
}

}  // namespace trireme::ops::cuda::detail

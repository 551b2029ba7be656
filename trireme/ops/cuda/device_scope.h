// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <c10/core/DeviceGuard.h>

#include "trireme/ops/cuda/kernels.h"

namespace trireme::ops::cuda {

// A CUDA device as the calling thread's current one, from construction to destruction, and the
// stream that is LibTorch's current one there.
class DeviceScope {
 public:
  explicit DeviceScope(c10::Device device);
  Stream stream() const { return stream_; }

 private:
  c10::DeviceGuard guard_;
  Stream stream_;
};

}  // namespace trireme::ops::cuda

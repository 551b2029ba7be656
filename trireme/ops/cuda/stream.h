// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where kernels on a CUDA device are queued, named without CUDA's headers.
#pragma once

namespace trireme::ops::cuda {

// A cudaStream_t; null: the device's default stream.
struct Stream {
  void* handle = nullptr;
};

}  // namespace trireme::ops::cuda

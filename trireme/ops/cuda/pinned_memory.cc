// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/cuda/pinned_memory.h"

#include <cuda_runtime_api.h>

#include "trireme/base/error.h"

namespace trireme::ops::cuda {

void pin_memory(void* data, std::size_t bytes) {
  const cudaError_t result = cudaHostRegister(data, bytes, cudaHostRegisterPortable);
  if (result == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // or LibTorch's next call would report it
  throw_error<Error>(
      "{} bytes of host memory cannot be pinned for copies to CUDA devices: {}; share the model "
      "among "
      "more ranks, or free memory of the host",
      bytes, cudaGetErrorString(result));
}

// At the end of a process the driver may be gone already, and the pins with it.
void unpin_memory(void* data) noexcept {
  if (cudaHostUnregister(data) != cudaSuccess) static_cast<void>(cudaGetLastError());
}

}  // namespace trireme::ops::cuda

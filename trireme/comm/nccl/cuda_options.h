// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a world needs to take buffers on a CUDA device.
#pragma once

#include <string>

#include "trireme/comm/buffer.h"

namespace trireme {

// Between all ranks or none: each on a device of its own.
struct CudaOptions {
  // The device whose memory this rank's operations take, by NCCL, beside the host's: its number
  // among those that the process sees. Usually the rank's number on its host. kHostMemory: none.
  int device = kHostMemory;
  // Loaded when the ranks meet. Names for the loader, or paths; empty: libcuda.so.1, libnccl.so.2,
  // and libnvrtc.so under any of its names.
  std::string driver_library;
  std::string nccl_library;
  std::string compiler_library;

  bool wanted() const { return device != kHostMemory; }
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The kernels of reduction_kernel.cu on a device: compiled for its architecture, and loaded whole,
// because loading may wait for the device's work, and so for other ranks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "trireme/comm/nccl/cuda_device.h"
#include "trireme/comm/nccl/nvrtc_api.h"
#include "trireme/comm/reduction_tree.h"

namespace trireme {

std::string_view reduction_source();

// Machine code of reduction_source() for an architecture ("sm_90"), without fused multiply-add,
// with subnormals, with division to nearest. Takes seconds. Throws ConfigError with the compiler's
// words.
std::string compile_reduction(const NvrtcApi& nvrtc, const std::string& architecture);

// Constant after construction. Any thread, under CudaDevice::Current.
class ReductionKernels {
 public:
  ReductionKernels(const CudaDevice& device, const NvrtcApi& nvrtc);
  ~ReductionKernels();
  ReductionKernels(const ReductionKernels&) = delete;
  ReductionKernels& operator=(const ReductionKernels&) = delete;

  // Takes the dtypes that reduce_nodes() takes.
  CuFunction find(DType in, DType out, ReduceOp op) const;

 private:
  struct Entry {
    DType in;
    DType out;
    ReduceOp op;
    CuFunction function;
  };

  const CudaDevice& device_;
  CuModule module_ = nullptr;
  std::vector<Entry> entries_;
};

}  // namespace trireme

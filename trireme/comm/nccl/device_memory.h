// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A device's memory, for the message engine: scratch memory on it, copies on it and to and from the
// host, and the tree of reductions by a kernel.
#pragma once

#include <memory>
#include <mutex>

#include "trireme/comm/message/memory.h"
#include "trireme/comm/nccl/cuda_device.h"
#include "trireme/comm/nccl/reduction_kernels.h"

namespace trireme {

// Each call is done when it returns. Any thread; one at a time works, on a stream of this object's.
class DeviceMemory final : public Memory {
 public:
  // Both must outlive it. Without kernels nothing can be reduced.
  DeviceMemory(const CudaDevice& device, const ReductionKernels* kernels);

  std::unique_ptr<Scratch> make_scratch() override;
  bool is_host() const override { return false; }
  // One of them, or both, may be the host's.
  void copy(void* to, const void* from, std::size_t bytes) override;
  void reduce(const NodeReduction& reduction, std::span<const void* const> inputs, void* out,
              std::int64_t count) override;

 private:
  const CudaDevice& device_;
  const ReductionKernels* const kernels_;
  std::mutex mutex_;
  // Guarded by mutex_.
  CudaStream stream_;
  CudaEvent event_;
  const std::unique_ptr<Scratch> table_;  // what a kernel is to read: places of inputs, combines
};

}  // namespace trireme

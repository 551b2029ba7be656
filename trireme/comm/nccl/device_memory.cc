// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/device_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "trireme/base/check.h"

namespace trireme {
namespace {

constexpr unsigned kBlockThreads = 256;
// Enough to fill every multiprocessor of the devices there are; what is beyond is looped over.
constexpr std::int64_t kMostBlocks = 2048;

CuPointer address(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

// What it has grown out of is freed only at the end: freeing waits for all work of the device, and
// so for other ranks. Sizes double, so that is as much again at most.
class DeviceScratch final : public Memory::Scratch {
 public:
  explicit DeviceScratch(const CudaDevice& device) : device_(device) {}
  ~DeviceScratch() override {
    const CudaDevice::Current current(device_);
    for (const CuPointer memory : all_) device_.api().memory_free(memory);
  }
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;

  std::byte* reserve(std::size_t bytes) override {
    if (bytes > size_) {
      const CudaDevice::Current current(device_);
      const std::size_t size = std::bit_ceil(bytes);
      CuPointer memory = 0;
      device_.check(device_.api().memory_allocate(&memory, size), "cuMemAlloc");
      all_.push_back(memory);
      size_ = size;
    }
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver's addresses are integers
    return all_.empty() ? nullptr : reinterpret_cast<std::byte*>(all_.back());
  }

 private:
  const CudaDevice& device_;
  std::vector<CuPointer> all_;
  std::size_t size_ = 0;  // of the last
};

}  // namespace

DeviceMemory::DeviceMemory(const CudaDevice& device, const ReductionKernels* kernels)
    : device_(device),
      kernels_(kernels),
      stream_(device),
      event_(device),
      table_(std::make_unique<DeviceScratch>(device)) {}

std::unique_ptr<Memory::Scratch> DeviceMemory::make_scratch() {
  return std::make_unique<DeviceScratch>(device_);
}

void DeviceMemory::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0 || to == from) return;
  const std::lock_guard lock(mutex_);
  const CudaDevice::Current current(device_);
  device_.check(device_.api().copy(address(to), address(from), bytes, stream_.get()),
                "cuMemcpyAsync");
  finish(device_, stream_, event_, "a copy");
}

void DeviceMemory::reduce(const NodeReduction& reduction, std::span<const void* const> inputs,
                          void* out, std::int64_t count) {
  TRIREME_ASSERT(kernels_ != nullptr, "a reduction of {} inputs without kernels", inputs.size());
  const CuFunction kernel = kernels_->find(reduction.in_dtype, reduction.out_dtype, reduction.op);
  const std::size_t places_bytes = inputs.size_bytes();
  std::vector<std::byte> table(places_bytes + inputs.size());
  std::memcpy(table.data(), inputs.data(), places_bytes);
  const int divisor = plan_combines(
      reduction, {reinterpret_cast<std::uint8_t*>(table.data() + places_bytes), inputs.size()});
  if (count == 0) return;
  const std::lock_guard lock(mutex_);
  const CudaDevice::Current current(device_);
  std::byte* const place = table_->reserve(table.size());
  device_.check(
      device_.api().copy(address(place), address(table.data()), table.size(), stream_.get()),
      "cuMemcpyAsync");
  CuPointer places = address(place);
  CuPointer combines = address(place + places_bytes);
  int num_inputs = static_cast<int>(inputs.size());
  int divide_by = divisor;
  CuPointer result = address(out);
  long long elements = count;
  void* arguments[] = {&places, &combines, &num_inputs, &divide_by, &result, &elements};
  const auto blocks = static_cast<unsigned>(
      std::min<std::int64_t>((count + kBlockThreads - 1) / kBlockThreads, kMostBlocks));
  device_.check(device_.api().launch(kernel, blocks, 1, 1, kBlockThreads, 1, 1, 0, stream_.get(),
                                     arguments, nullptr),
                "cuLaunchKernel");
  finish(device_, stream_, event_, "a reduction");
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/cuda_device.h"

#include <chrono>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/comm/nccl/backoff.h"

namespace trireme {
namespace {

// Far beyond what copying and combining a device's whole memory takes.
constexpr std::chrono::minutes kDeviceTime{1};

std::string name_of(const CudaApi& api, CuResult error) {
  const char* name = nullptr;
  const char* text = nullptr;
  api.get_error_name(error, &name);
  api.get_error_string(error, &text);
  return fmt::format("{} ({})", name != nullptr ? name : std::to_string(error),
                     text != nullptr ? text : "no text");
}

}  // namespace

CudaDevice::CudaDevice(const CudaOptions& options)
    : api_(options.driver_library), number_(options.device) {
  try {
    check(api_.init(0), "cuInit");
    find(options.device);
    check(api_.context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
  } catch (const CommError& error) {
    throw ConfigError(error.what());
  }
}

void CudaDevice::find(int number) {
  int count = 0;
  check(api_.device_count(&count), "cuDeviceGetCount");
  if (number < 0 || number >= count) {
    throw_error<ConfigError>("there is no CUDA device {}: this process sees {}, numbered from 0",
                             number, count);
  }
  check(api_.device_get(&device_, number), "cuDeviceGet");
  char id[64] = {};
  check(api_.device_bus_id(id, sizeof(id), device_), "cuDeviceGetPCIBusId");
  bus_id_ = id;
  int major = 0;
  int minor = 0;
  check(api_.device_attribute(&major, kCuComputeCapabilityMajor, device_), "cuDeviceGetAttribute");
  check(api_.device_attribute(&minor, kCuComputeCapabilityMinor, device_), "cuDeviceGetAttribute");
  architecture_ = fmt::format("sm_{}{}", major, minor);
}

CudaDevice::~CudaDevice() { api_.context_release(device_); }

void CudaDevice::check(CuResult result, std::string_view call) const {
  if (result == kCuSuccess) return;
  throw_error<CommError>("CUDA device {}: {} says {}", number_, call, name_of(api_, result));
}

CudaDevice::Current::Current(const CudaDevice& device)
    : device_(device), pushed_(device.api_.context_push(device.context_) == kCuSuccess) {}

CudaDevice::Current::~Current() {
  CuContext popped = nullptr;
  if (pushed_) device_.api_.context_pop(&popped);
}

CudaStream::CudaStream(const CudaDevice& device) : device_(device) {
  const CudaDevice::Current current(device);
  device.check(device.api().stream_create(&stream_, kCuStreamNonBlocking), "cuStreamCreate");
}

CudaStream::~CudaStream() {
  const CudaDevice::Current current(device_);
  device_.api().stream_destroy(stream_);
}

CudaEvent::CudaEvent(const CudaDevice& device) : device_(device) {
  const CudaDevice::Current current(device);
  device.check(device.api().event_create(&event_, kCuEventDisableTiming), "cuEventCreate");
}

CudaEvent::~CudaEvent() {
  const CudaDevice::Current current(device_);
  device_.api().event_destroy(event_);
}

void CudaEvent::record(const CudaStream& stream) {
  device_.check(device_.api().event_record(event_, stream.get()), "cuEventRecord");
}

bool CudaEvent::done() const {
  const CuResult result = device_.api().event_query(event_);
  if (result == kCuNotReady) return false;
  device_.check(result, "cuEventQuery");
  return true;
}

void finish(const CudaDevice& device, const CudaStream& stream, CudaEvent& event,
            std::string_view what) {
  event.record(stream);
  const Deadline deadline = Deadline::after(kDeviceTime);
  Backoff backoff;
  while (!event.done()) {
    if (deadline.expired()) {
      throw_error<CommError>("CUDA device {} has not finished {} within {} s", device.number(),
                             what, std::chrono::seconds(kDeviceTime).count());
    }
    backoff.rest();
  }
}

}  // namespace trireme

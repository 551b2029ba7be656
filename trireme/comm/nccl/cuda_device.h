// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One CUDA device as a rank uses it: its primary context, which LibTorch, NCCL and the runtime API
// use too, and streams and events on it.
#pragma once

#include <string>
#include <string_view>

#include "trireme/comm/nccl/cuda_api.h"
#include "trireme/comm/nccl/cuda_options.h"

namespace trireme {

// Any thread.
class CudaDevice {
 public:
  // Throws ConfigError when the driver cannot be had or there is no such device.
  explicit CudaDevice(const CudaOptions& options);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  // The context is the calling thread's as long as this exists; where it cannot be, the calls made
  // under it say so. Every call of the driver and of NCCL is made under one.
  class Current {
   public:
    explicit Current(const CudaDevice& device);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    const CudaDevice& device_;
    const bool pushed_;
  };

  const CudaApi& api() const { return api_; }
  int number() const { return number_; }
  const std::string& bus_id() const { return bus_id_; }              // "0000:3b:00.0"
  const std::string& architecture() const { return architecture_; }  // "sm_90"

  // Throws CommError, with the driver's own words, unless the call succeeded.
  void check(CuResult result, std::string_view call) const;

 private:
  void find(int number);

  // Constant after construction.
  const CudaApi api_;
  const int number_;
  CuDevice device_ = 0;
  CuContext context_ = nullptr;
  std::string bus_id_;
  std::string architecture_;
};

// Work of one stream happens in order, beside that of all other streams, the default one too. Used
// under CudaDevice::Current, but for the constructor and the destructor.
class CudaStream {
 public:
  explicit CudaStream(const CudaDevice& device);
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  CuStream get() const { return stream_; }

 private:
  const CudaDevice& device_;
  CuStream stream_ = nullptr;
};

// A place in a stream's work.
class CudaEvent {
 public:
  explicit CudaEvent(const CudaDevice& device);
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void record(const CudaStream& stream);
  // True when all that stood in the stream before record() is done, and before the first record().
  bool done() const;

 private:
  const CudaDevice& device_;
  CuEvent event_ = nullptr;
};

// Blocks until the work in the stream is done: work that depends on no other rank. Throws CommError
// when the device does not finish it within a minute.
void finish(const CudaDevice& device, const CudaStream& stream, CudaEvent& event,
            std::string_view what);

}  // namespace trireme

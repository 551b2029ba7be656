// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// DeviceLink: the copies between a device that computes and the host's memory, where masters, sums
// of gradients and the optimizer live (ZeRO-Offload). They go on while both sides work.
//
//   DeviceLink link(c10::Device(at::kCUDA, 0));
//   const at::Tensor host = link.host_zeros(group, {count}, at::kFloat);
//   const DevicePoint there = link.start_copy(host, gradients, link.queued());
//   ...             // backward goes on; leave both tensors alone
//   there.wait();   // the gradients are in `host`, and their memory is free
//
// A device works off what threads have queued, later and in the order of its streams. On a device
// with streams (CUDA) the copies to each side have a stream of their own, and host memory is
// pinned. The CPU may be linked too, as a device whose memory is another part of the host's: what
// is queued there is done at once, and a thread copies. So all that is built on a link runs, and is
// tested, without a GPU.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <memory>
#include <utility>

namespace trireme {

class Group;

// A point that a device's work will reach: the end of a copy, or of what a thread had queued. A
// cheap value; one that is made of nothing is reached. Any thread.
class DevicePoint {
 public:
  class Impl {
   public:
    virtual ~Impl() = default;
    virtual void wait() const = 0;
    virtual void hold_device() const = 0;
  };

  DevicePoint() = default;
  explicit DevicePoint(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

  // Blocks until it is reached. Throws what ended the work, c10::Error on a device; Error when the
  // device does not come so far within 5 minutes (what ranks wait for each other).
  void wait() const;
  // What this thread queues on its current stream from now on happens after it. Blocks on the CPU
  // alone, as wait() does.
  void hold_device() const;

 private:
  std::shared_ptr<const Impl> impl_;
};

// Any thread; the current stream is that of the thread which calls.
class DeviceLink {
 public:
  class Impl;

  // device: with its number, or the CPU. Throws ConfigError: a CUDA device in a build without CUDA;
  // a device without streams.
  explicit DeviceLink(c10::Device device);
  ~DeviceLink();  // blocks until all copies have ended
  DeviceLink(const DeviceLink&) = delete;
  DeviceLink& operator=(const DeviceLink&) = delete;

  c10::Device device() const { return device_; }

  // Zeros in host memory of both kinds: what copies want, and the group's collectives (as
  // shared_zeros(), whose errors these are). Throws Error when no more memory can be pinned.
  at::Tensor host_zeros(Group& group, at::IntArrayRef sizes, at::ScalarType dtype) const;
  // [elements] on the device, of any content.
  at::Tensor device_memory(std::int64_t elements, at::ScalarType dtype) const;

  // All that this thread has queued so far.
  DevicePoint queued() const;
  // Starts to copy `from` to `to`, once the device has reached `after`; both contiguous, of one
  // size and dtype, one on the host and one on the device. Copies to one side end in the order in
  // which they were started. Neither tensor is freed before. Throws ShapeError.
  DevicePoint start_copy(const at::Tensor& to, const at::Tensor& from, const DevicePoint& after);

 private:
  const c10::Device device_;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace trireme

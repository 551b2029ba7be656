// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/device_link.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/comm/nccl/backoff.h"
#include "trireme/ops/cuda/pinned_memory.h"
#include "trireme/ops/tensor_view.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

// Group's own default: beyond it the other ranks have given this one up.
constexpr std::chrono::minutes kDeviceTime{5};

[[noreturn]] void throw_too_slow(c10::Device device) {
  throw_error<Error>(
      "{} has not come to the end of a copy within {} min: a kernel before it hangs, or a step "
      "takes "
      "longer; make micro-batches smaller",
      device.str(), kDeviceTime.count());
}

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

c10::Stream new_stream(c10::Device device) {
  try {
    return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
  } catch (const c10::Error&) {
    throw_error<ConfigError>(
        "weights on {} cannot be offloaded: LibTorch has no streams for this device; use the CPU "
        "or "
        "a CUDA device",
        device.str());
  }
}

}  // namespace

class DeviceLink::Impl {
 public:
  virtual ~Impl() = default;
  virtual DevicePoint queued() const = 0;
  virtual DevicePoint start_copy(const at::Tensor& to, const at::Tensor& from,
                                 const DevicePoint& after) = 0;
};

namespace {

// An event in a stream. Keeps what the copy before it uses.
class StreamPoint final : public DevicePoint::Impl {
 public:
  StreamPoint(const c10::Stream& stream, std::vector<at::Tensor> kept)
      : device_(stream.device()), kept_(std::move(kept)), event_(stream.device_type()) {
    event_.record(stream);
  }

  bool reached() const { return event_.query(); }
  void wait() const override {
    const Deadline deadline = Deadline::after(kDeviceTime);
    for (Backoff backoff; !reached(); backoff.rest()) {
      if (deadline.expired()) throw_too_slow(device_);
    }
  }
  void hold_device() const override { event_.block(current_stream(device_)); }

 private:
  const c10::Device device_;
  const std::vector<at::Tensor> kept_;
  c10::Event event_;
};

// Of a device with streams.
class StreamCopies final : public DeviceLink::Impl {
 public:
  explicit StreamCopies(c10::Device device)
      : device_(device), to_host_{new_stream(device), {}}, to_device_{new_stream(device), {}} {}
  ~StreamCopies() override {
    for (Side* side : {&to_host_, &to_device_}) {
      for (const auto& copy : side->under_way) {
        try {
          copy->wait();
        } catch (const std::exception&) {  // the device has failed, and copies no more
          break;
        }
      }
    }
  }

  DevicePoint queued() const override {
    return DevicePoint(
        std::make_shared<StreamPoint>(current_stream(device_), std::vector<at::Tensor>()));
  }

  DevicePoint start_copy(const at::Tensor& to, const at::Tensor& from,
                         const DevicePoint& after) override {
    const std::lock_guard lock(mutex_);
    Side& side = to.device() == device_ ? to_device_ : to_host_;
    while (!side.under_way.empty() && side.under_way.front()->reached()) {
      side.under_way.pop_front();
    }
    const c10::StreamGuard guard(side.stream);
    after.hold_device();
    to.copy_(from, /*non_blocking=*/true);
    side.under_way.push_back(
        std::make_shared<StreamPoint>(side.stream, std::vector<at::Tensor>{to, from}));
    return DevicePoint(side.under_way.back());
  }

 private:
  struct Side {
    c10::Stream stream;
    std::deque<std::shared_ptr<const StreamPoint>> under_way;  // guarded by mutex_
  };
  const c10::Device device_;
  std::mutex mutex_;
  Side to_host_, to_device_;
};

// What a thread has done.
class ThreadPoint final : public DevicePoint::Impl {
 public:
  explicit ThreadPoint(std::shared_future<void> done) : done_(std::move(done)) {}
  void wait() const override {
    if (done_.wait_for(kDeviceTime) != std::future_status::ready) throw_too_slow(at::kCPU);
    done_.get();
  }
  void hold_device() const override { wait(); }

 private:
  const std::shared_future<void> done_;
};

// Of the CPU.
class ThreadCopies final : public DeviceLink::Impl {
 public:
  ThreadCopies() : thread_([this] { work_off(); }) {}
  ~ThreadCopies() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  DevicePoint queued() const override { return {}; }

  DevicePoint start_copy(const at::Tensor& to, const at::Tensor& from,
                         const DevicePoint& after) override {
    std::packaged_task<void()> copy([to, from, after] {
      after.wait();
      std::memcpy(to.data_ptr(), from.data_ptr(), from.nbytes());
    });
    auto done = std::make_shared<ThreadPoint>(copy.get_future().share());
    {
      const std::lock_guard lock(mutex_);
      copies_.push_back(std::move(copy));
    }
    changed_.notify_all();
    return DevicePoint(std::move(done));
  }

 private:
  void work_off() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || !copies_.empty(); });
      if (copies_.empty()) return;
      {
        std::packaged_task<void()> copy = std::move(copies_.front());
        copies_.pop_front();
        lock.unlock();
        copy();
      }
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<std::packaged_task<void()>> copies_;
  bool stopping_ = false;

  std::thread thread_;  // last: works with all of the above
};

std::unique_ptr<DeviceLink::Impl> make_copies(c10::Device device) {
  if (device.is_cpu()) return std::make_unique<ThreadCopies>();
  if (device.is_cuda() && !ops::kHasCudaKernels) {
    throw_error<ConfigError>(
        "weights on {} cannot be offloaded by this build of Trireme: build it with "
        "-DTRIREME_WITH_CUDA=ON",
        device.str());
  }
  return std::make_unique<StreamCopies>(device);
}

}  // namespace

void DevicePoint::wait() const {
  if (impl_) impl_->wait();
}

void DevicePoint::hold_device() const {
  if (impl_) impl_->hold_device();
}

DeviceLink::DeviceLink(c10::Device device) : device_(device), impl_(make_copies(device)) {}
DeviceLink::~DeviceLink() = default;

at::Tensor DeviceLink::host_zeros(Group& group, at::IntArrayRef sizes, at::ScalarType dtype) const {
  const at::Tensor memory = shared_zeros(group, sizes, dtype);
  if constexpr (ops::kHasCudaKernels) {
    if (device_.is_cuda() && memory.nbytes() > 0) {
      const c10::DeviceGuard guard(device_);
      ops::cuda::pin_memory(memory.data_ptr(), memory.nbytes());
      return at::for_blob(memory.data_ptr(), sizes)
          .deleter([memory](void* data) { ops::cuda::unpin_memory(data); })
          .options(memory.options())
          .make_tensor();
    }
  }
  return memory;
}

at::Tensor DeviceLink::device_memory(std::int64_t elements, at::ScalarType dtype) const {
  return at::empty({elements}, at::TensorOptions().dtype(dtype).device(device_));
}

DevicePoint DeviceLink::queued() const { return impl_->queued(); }

DevicePoint DeviceLink::start_copy(const at::Tensor& to, const at::Tensor& from,
                                   const DevicePoint& after) {
  const auto on_host_and_device = [&](const at::Tensor& host, const at::Tensor& device) {
    return host.is_cpu() && device.device() == device_;
  };
  const bool fits = to.is_contiguous() && from.is_contiguous() && to.numel() == from.numel() &&
                    to.scalar_type() == from.scalar_type() &&
                    (on_host_and_device(to, from) || on_host_and_device(from, to));
  if (!fits) {
    throw_error<ShapeError>(
        "a copy between the host and {} wants two contiguous tensors of one size and dtype, one on "
        "each; got {} {} on {} from {} {} on {}",
        device_.str(), to.numel(), c10::toString(to.scalar_type()), to.device().str(), from.numel(),
        c10::toString(from.scalar_type()), from.device().str());
  }
  if (to.numel() == 0) return {};
  const at::NoGradGuard no_grad;
  return impl_->start_copy(to, from, after);
}

}  // namespace trireme

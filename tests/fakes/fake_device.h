// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A double of the CUDA driver, NVRTC and NCCL in one shared object, for ranks that are threads of
// one process. Device memory is host memory at addresses of its own, at which the host finds
// nothing. Streams are threads that work in order. It is strict: what the real ones do not allow is
// an error here, and is kept for the test to see (trireme_fake_misuse).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace fake {

constexpr int kDevices = 8;
constexpr std::uintptr_t kDeviceShift = std::uintptr_t{1} << 62;

inline bool is_device(std::uintptr_t address) { return address >= kDeviceShift; }
inline std::byte* host_of(std::uintptr_t address) {
  return reinterpret_cast<std::byte*>(address - kDeviceShift);
}

// Keeps the text for the test, and returns result.
int misuse(const std::string& text, int result);
// The calling thread's current context: a device's number, -1 without one.
int current_device();

class Stream {
 public:
  explicit Stream(int device) : device_(device), thread_([this] { work(); }) {}
  ~Stream() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void put(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_all();
  }
  int device() const { return device_; }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  const int device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

// Runs a kernel of reduction_kernel.cu on the host; null when there is none of that name.
struct KernelArguments {
  const void* const* inputs;
  const unsigned char* combines;
  int num_inputs;
  int divisor;
  void* out;
  long long count;
};
using Kernel = void (*)(const KernelArguments& arguments, unsigned blocks, unsigned threads);
Kernel find_kernel(const std::string& name);

}  // namespace fake

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One job at a time on a thread of its own: what a hierarchical engine does between hosts while it
// works inside its own.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace trireme {

// One thread calls start() and wait().
class RailWorker {
 public:
  RailWorker() = default;
  // Waits for the job.
  ~RailWorker();
  RailWorker(const RailWorker&) = delete;
  RailWorker& operator=(const RailWorker&) = delete;

  // No job may be under way.
  void start(std::function<void()> job);
  // Blocks until the job is done; throws what it threw. No effect without a job.
  void wait();

 private:
  void work_off();

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::function<void()> job_;  // empty: none is under way
  std::exception_ptr error_;
  bool stopping_ = false;

  std::thread thread_;  // from the first start() on
};

}  // namespace trireme

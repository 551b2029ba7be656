// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Threads for blocking calls that must not wait for one another: every task runs at once, on a
// thread that is idle or on a new one.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace trireme {

// Any thread may call any function.
class TaskPool {
 public:
  TaskPool() = default;
  // Waits for all tasks.
  ~TaskPool();
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // Calls the task, and then end, when the pool no longer counts the task: whoever end tells that
  // the task is done finds the pool idle. end must not call the pool. Neither may throw. Throws
  // CommError, without having taken the task, where the system has no thread for it.
  void start(std::function<void()> task, std::function<void()> end);
  bool idle() const;
  void wait_until_idle();

 private:
  struct Task {
    std::function<void()> run;
    std::function<void()> end;
  };

  void work_off();

  mutable std::mutex mutex_;
  std::condition_variable work_;  // a task, or stopping
  std::condition_variable done_;  // idle
  // Guarded by mutex_.
  std::deque<Task> tasks_;
  std::vector<std::thread> threads_;
  std::size_t resting_ = 0;  // threads without a task
  std::size_t running_ = 0;
  bool stopping_ = false;
};

}  // namespace trireme

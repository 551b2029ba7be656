// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/task_pool.h"

#include <utility>

namespace trireme {

TaskPool::~TaskPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void TaskPool::start(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  if (tasks_.size() > resting_) {
    threads_.emplace_back([this] { work_off(); });
    ++resting_;
  }
  changed_.notify_all();
}

bool TaskPool::idle() const {
  const std::lock_guard lock(mutex_);
  return tasks_.empty() && running_ == 0;
}

void TaskPool::wait_until_idle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return tasks_.empty() && running_ == 0; });
}

void TaskPool::work_off() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    --resting_;
    ++running_;
    lock.unlock();
    task();
    lock.lock();
    --running_;
    ++resting_;
    changed_.notify_all();
  }
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/task_pool.h"

#include <system_error>
#include <utility>

#include "trireme/base/error.h"

namespace trireme {

TaskPool::~TaskPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    work_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void TaskPool::start(std::function<void()> task, std::function<void()> end) {
  const std::lock_guard lock(mutex_);
  if (tasks_.size() >= resting_) {
    try {
      threads_.emplace_back([this] { work_off(); });
    } catch (const std::system_error& error) {
      throw_error<CommError>(
          "no thread for another operation beside the {} that are under way ({}); wait for some of "
          "them first",
          threads_.size(), error.what());
    }
    ++resting_;
  }
  tasks_.push_back({std::move(task), std::move(end)});
  work_.notify_one();
}

bool TaskPool::idle() const {
  const std::lock_guard lock(mutex_);
  return tasks_.empty() && running_ == 0;
}

void TaskPool::wait_until_idle() {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return tasks_.empty() && running_ == 0; });
}

void TaskPool::work_off() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const Task task = std::move(tasks_.front());
    tasks_.pop_front();
    --resting_;
    ++running_;
    lock.unlock();
    task.run();
    lock.lock();
    --running_;
    ++resting_;
    task.end();
    if (tasks_.empty() && running_ == 0) done_.notify_all();
  }
}

}  // namespace trireme

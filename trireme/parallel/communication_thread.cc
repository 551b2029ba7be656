// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/communication_thread.h"

#include <utility>

#include "trireme/comm/group.h"

namespace trireme {

CommunicationThread::CommunicationThread(std::unique_ptr<Group> group) : group_(std::move(group)) {}

CommunicationThread::~CommunicationThread() {
  if (!thread_.joinable()) return;
  bool pending = false;
  {
    const std::lock_guard lock(mutex_);
    pending = done_ != posted_ && failure_ == nullptr;
    stopping_ = true;
    tasks_.clear();
  }
  if (pending) group_->abandon("it ended in the middle of a step");
  changed_.notify_all();
  thread_.join();
}

CommunicationThread::Ticket CommunicationThread::post(Task task) {
  if (!thread_.joinable()) thread_ = std::thread([this] { work_off(); });
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
  return ++posted_;
}

void CommunicationThread::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= ticket || failure_ != nullptr; });
  if (failure_ != nullptr) std::rethrow_exception(failure_);
}

void CommunicationThread::check() const {
  const std::lock_guard lock(mutex_);
  if (failure_ != nullptr) std::rethrow_exception(failure_);
}

std::chrono::nanoseconds CommunicationThread::busy() const {
  const std::lock_guard lock(mutex_);
  return busy_;
}

void CommunicationThread::work_off() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    const Task task = std::move(tasks_.front());
    tasks_.pop_front();
    const bool failed = failure_ != nullptr;
    lock.unlock();
    const auto begin = std::chrono::steady_clock::now();
    std::exception_ptr failure;
    try {
      if (!failed) task(*group_);
    } catch (...) {
      failure = std::current_exception();
    }
    const auto end = std::chrono::steady_clock::now();
    lock.lock();
    busy_ += end - begin;
    if (failure_ == nullptr) failure_ = failure;
    ++done_;
    changed_.notify_all();
  }
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/strands.h"

#include <ATen/Parallel.h>
#include <omp.h>

#include <utility>

namespace trireme::ps {

Strands::Strands(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

void Strands::Strand::post(std::function<void()> task) {
  const std::lock_guard lock(strands_.mutex_);
  if (strands_.stopping_) return;
  tasks_.push_back(std::move(task));
  if (std::exchange(queued_, true)) return;
  strands_.ready_.push_back(this);
  strands_.ready_changed_.notify_one();
}

// One task of a strand, then the next strand's: none waits for all of another's.
void Strands::work() {
  at::get_num_threads();   // LibTorch sets the thread's number when it is first asked
  omp_set_num_threads(1);  // of this thread alone
  std::unique_lock lock(mutex_);
  while (true) {
    ready_changed_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
    if (stopping_) return;
    Strand& strand = *ready_.front();
    ready_.pop_front();
    std::function<void()> task = std::move(strand.tasks_.front());
    strand.tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it held goes before the strand runs on
    lock.lock();
    if (strand.tasks_.empty()) {
      strand.queued_ = false;
    } else if (!stopping_) {
      ready_.push_back(&strand);
      ready_changed_.notify_one();
    }
  }
}

void Strands::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    ready_.clear();
  }
  ready_changed_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace trireme::ps

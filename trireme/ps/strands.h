// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Strands: tasks of many owners on a few threads, those of one owner in order and one at a time.
//
//   Strands strands(2);
//   Strands::Strand range(strands);
//   range.post([&] { ... });         // any thread; never while another task of this strand runs
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace trireme::ps {

class Strands {
 public:
  class Strand {
   public:
    explicit Strand(Strands& strands) : strands_(strands) {}
    Strand(const Strand&) = delete;
    Strand& operator=(const Strand&) = delete;
    // The task must not throw. Nothing after Strands::stop().
    void post(std::function<void()> task);

   private:
    friend class Strands;
    Strands& strands_;
    std::deque<std::function<void()>> tasks_;  // guarded by strands_.mutex_
    bool queued_ = false;                      // guarded by strands_.mutex_: in ready_, or runs
  };

  // Each thread computes with one OpenMP thread: the strands are the parallelism.
  explicit Strands(int threads);
  ~Strands() { stop(); }
  // Waits for the tasks that run; others are dropped. Idempotent.
  void stop();

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable ready_changed_;
  std::deque<Strand*> ready_;  // guarded by mutex_
  bool stopping_ = false;      // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace trireme::ps

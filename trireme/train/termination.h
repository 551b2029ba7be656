// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Being told to end, for a process that serves others until then.
//
//   Termination termination;
//   ...
//   const Termination::Action action(termination, [&] { server.stop(); });
//   server.wait();
#pragma once

#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "trireme/base/file_descriptor.h"

namespace trireme {

// Takes SIGTERM and SIGINT while it lives: they interrupt nothing. For the main thread of a process
// that has no other threads yet: those that begin meanwhile leave the signals alone.
class Termination {
 public:
  // Throws Error when there is no descriptor to be had.
  Termination();
  ~Termination();
  Termination(const Termination&) = delete;
  Termination& operator=(const Termination&) = delete;

  bool told() const;
  // Blocks until a signal has come.
  void wait() const;
  // The same for at most the given time. False: none has.
  bool wait_for(std::chrono::milliseconds time) const;

  // What happens at the first signal, on a thread of its own, while the Action lives: at once when
  // it has come already. One at a time; act must not block.
  class Action {
   public:
    Action(Termination& owner, std::function<void()> act);
    ~Action();
    Action(const Action&) = delete;
    Action& operator=(const Action&) = delete;

   private:
    Termination& owner_;
  };

 private:
  void watch();

  // Constant after construction.
  sigset_t set_{};
  sigset_t old_mask_{};
  FileDescriptor signals_;
  FileDescriptor closing_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool told_ = false;          // guarded by mutex_
  std::function<void()> act_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace trireme

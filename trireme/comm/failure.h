// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The first cause of a failure, kept for good. A world has one latch: whatever ends one operation
// on one rank ends all groups of that world on all ranks, each with the same cause.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace trireme {

// An error of the communication layer as data: it can be kept, sent to other ranks and thrown again
// by any thread.
struct Failure {
  enum class Kind : std::uint8_t { kComm, kTimeout, kPeerLost, kConfig };

  Kind kind = Kind::kComm;
  int rank = -1;  // of the world: the lost peer, for kPeerLost
  std::string message;

  // Throws the typed error.
  [[noreturn]] void raise() const;
  static Failure of(const std::exception& error);
};

// Any thread may call any function.
class FailureLatch {
 public:
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  // Throws the first cause, if there is one.
  void throw_if_failed() const;
  std::optional<Failure> cause() const;

  // Latches the failure. Returns false, and changes nothing, when there already is one. Wakes
  // subscribers and waiters.
  bool fail(const Failure& failure);

  // Blocks for at most the given time. True when failed.
  bool wait_for(std::chrono::milliseconds time) const;

  // For one whose peer's connection or memory is gone: the control plane knows why at nearly the
  // same time. Waits for that, at most a second, and throws it; returns when nothing was heard.
  void throw_cause_of_a_break() const;

  // wake is called, from any thread, when the latch falls and by wake_all(). It must not block nor
  // call the latch. After unsubscribe() returns it is not running and will not run.
  int subscribe(std::function<void()> wake);
  void unsubscribe(int token);
  void wake_all();

 private:
  std::atomic<bool> failed_ = false;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  // Guarded by mutex_.
  std::optional<Failure> cause_;
  std::map<int, std::function<void()>> subscribers_;
  int next_token_ = 0;
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A point in monotonic time by which something has to be done. Every blocking call of Trireme takes
// one, and none is infinite. The wall clock is never consulted.
//
//   const Deadline deadline = Deadline::after(std::chrono::seconds(30));
//   while (!done()) {
//     if (deadline.expired()) throw_error<TimeoutError>("...");
//     wait_for(deadline.remaining());
//   }
#pragma once

#include <chrono>

namespace trireme {

// Constant after construction; copies are cheap.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  static Deadline after(std::chrono::milliseconds time) { return Deadline(Clock::now() + time); }

  bool expired() const { return Clock::now() >= at_; }
  // Never negative.
  std::chrono::milliseconds remaining() const {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(at_ - Clock::now());
    return left.count() > 0 ? left : std::chrono::milliseconds(0);
  }
  Clock::time_point time_point() const { return at_; }

 private:
  explicit Deadline(Clock::time_point at) : at_(at) {}
  Clock::time_point at_;
};

}  // namespace trireme

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

#include <algorithm>
#include <chrono>

namespace trireme {

// Constant after construction; copies are cheap.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  // A negative time counts as none, one beyond the clock's range as its end.
  static Deadline after(std::chrono::milliseconds time) {
    const Clock::time_point now = Clock::now();
    const auto most = std::chrono::floor<std::chrono::milliseconds>(Clock::time_point::max() - now);
    return Deadline(now + std::clamp(time, std::chrono::milliseconds(0), most));
  }

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

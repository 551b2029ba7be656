// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Between two looks at something that cannot be waited for: at first others run, then the looker
// sleeps, longer the longer it has waited. At most a sixteenth of the time waited is lost, and
// whoever waits for long costs next to nothing.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

namespace trireme {

class Backoff {
 public:
  void rest() {
    // What falling asleep and waking cost, some times.
    constexpr std::chrono::microseconds kYieldTime{200};
    constexpr int kSleepShare = 16;
    // A failure is noticed that soon.
    constexpr std::chrono::microseconds kLongestSleep{1000};
    const auto waited =
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began_);
    if (waited < kYieldTime) return std::this_thread::yield();
    std::this_thread::sleep_for(std::min(waited / kSleepShare, kLongestSleep));
  }

 private:
  using Clock = std::chrono::steady_clock;
  const Clock::time_point began_ = Clock::now();
};

}  // namespace trireme

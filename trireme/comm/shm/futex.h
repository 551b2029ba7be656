// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Sleeping on words of memory that several processes share.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <ctime>

namespace trireme {

inline timespec timespec_of(std::chrono::nanoseconds time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  timespec result{};
  result.tv_sec = seconds.count();
  result.tv_nsec = (time - seconds).count();
  return result;
}

// Sleeps while word is expected, at most for the given time. May return for no reason.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       std::chrono::microseconds time) {
  const timespec relative = timespec_of(time);
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, &relative, nullptr, 0);
}

// The same for two words: sleeps while both are as expected. Where the kernel cannot (before
// Linux 5.16) it sleeps on the first for at most a millisecond.
inline void futex_wait_either(std::atomic<std::uint32_t>& one, std::uint32_t expected_one,
                              std::atomic<std::uint32_t>& two, std::uint32_t expected_two,
                              std::chrono::microseconds time) {
#if defined(SYS_futex_waitv) && defined(FUTEX_32)
  futex_waitv words[2] = {};
  words[0].val = expected_one;
  words[0].uaddr = reinterpret_cast<std::uintptr_t>(&one);
  words[0].flags = FUTEX_32;
  words[1].val = expected_two;
  words[1].uaddr = reinterpret_cast<std::uintptr_t>(&two);
  words[1].flags = FUTEX_32;
  const timespec at = timespec_of(std::chrono::steady_clock::now().time_since_epoch() + time);
  const long result = syscall(SYS_futex_waitv, words, 2, 0, &at, CLOCK_MONOTONIC);
  if (result >= 0 || (errno != ENOSYS && errno != EPERM)) return;
#else
  (void)two;
  (void)expected_two;
#endif
  futex_wait(one, expected_one, std::min(time, std::chrono::microseconds(1000)));
}

inline void futex_wake_all(std::atomic<std::uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace trireme

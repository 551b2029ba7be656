// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/deadline.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

using namespace std::chrono_literals;

TEST(Deadline, IsAheadUntilItsTime) {
  const Deadline deadline = Deadline::after(1h);
  EXPECT_FALSE(deadline.expired());
  EXPECT_GT(deadline.remaining(), 30min);
  EXPECT_LE(deadline.remaining(), 1h);
  EXPECT_GT(deadline.time_point(), Deadline::Clock::now());
}

TEST(Deadline, NoTimeAndLessAreExpiredAtOnce) {
  for (const auto time : {0ms, -1ms, -3'600'000ms, std::chrono::milliseconds::min()}) {
    const Deadline deadline = Deadline::after(time);
    EXPECT_TRUE(deadline.expired());
    EXPECT_EQ(deadline.remaining(), 0ms);
  }
}

TEST(Deadline, TimesBeyondTheClockDoNotWrap) {
  const Deadline deadline = Deadline::after(std::chrono::milliseconds::max());
  EXPECT_FALSE(deadline.expired());
  EXPECT_GT(deadline.remaining(), std::chrono::hours(24 * 365));
}

// A waiter that sleeps for remaining() must not wake before the deadline and find it ahead.
TEST(Deadline, WhatRemainsIsRoundedUp) {
  for (int i = 0; i < 1000; ++i) {
    const Deadline deadline = Deadline::after(1min);
    const auto before = Deadline::Clock::now();
    EXPECT_GE(Deadline::Clock::now() + deadline.remaining(), deadline.time_point());
    EXPECT_LE(deadline.remaining(), deadline.time_point() - before + 1ms);
  }
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/process_cores.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace trireme {
namespace {

TEST(ProcessCores, MasksHoldAnyCore) {
  const std::vector<int> cores = {0, 3, 63, 64, 1023, 1024, 5000};
  EXPECT_EQ(CoreMask(cores).cores(), cores);
  EXPECT_EQ(CoreMask(cores).bytes(), 5 * sizeof(cpu_set_t));
  EXPECT_EQ(CoreMask().cores(), std::vector<int>());
}

TEST(ProcessCores, AreRememberedWhileAThreadIsPinned) {
  const std::vector<int> before = process_cores();
  ASSERT_FALSE(before.empty());
  EXPECT_TRUE(std::ranges::is_sorted(before));
  std::thread([&] {
    const CoreMask one(std::vector<int>{before.back()});
    ASSERT_EQ(sched_setaffinity(0, one.bytes(), one.data()), 0);
    EXPECT_EQ(CoreMask::of_this_thread().cores(), std::vector<int>{before.back()});
    EXPECT_EQ(process_cores(), before);
  }).join();
}

}  // namespace
}  // namespace trireme

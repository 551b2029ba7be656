// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/core_pinning.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "trireme/base/process_cores.h"
#include "trireme/ops/threads.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Shares = std::vector<std::vector<int>>;

TEST(CorePinning, EachThreadHasItsShareOfItsRanksPart) {
  const std::vector<int> cores = {0, 1, 2, 3, 8, 9, 10, 11};
  EXPECT_EQ(share_cores(cores, {.threads = 2, .local_rank = 0, .local_size = 2}),
            (Shares{{0, 1}, {2, 3}}));
  EXPECT_EQ(share_cores(cores, {.threads = 2, .local_rank = 1, .local_size = 2}),
            (Shares{{8, 9}, {10, 11}}));
  EXPECT_EQ(share_cores(cores, {.threads = 4, .local_rank = 1, .local_size = 2}),
            (Shares{{8}, {9}, {10}, {11}}));
  EXPECT_EQ(share_cores(cores, {.threads = 3, .local_rank = 0, .local_size = 1}),
            (Shares{{0, 1}, {2, 3, 8}, {9, 10, 11}}));
}

TEST(CorePinning, PartsOfAllRanksAreApartAndUseEveryCore) {
  for (int num_cores = 1; num_cores <= 13; ++num_cores) {
    std::vector<int> cores;
    for (int i = 0; i < num_cores; ++i) cores.push_back(3 * i + 1);
    for (int size = 1; size <= 8; ++size) {
      std::multiset<int> used;
      const int threads = num_cores / size;
      for (int rank = 0; rank < size && threads > 0; ++rank) {
        const Shares shares = share_cores(cores, {threads, rank, size});
        ASSERT_EQ(shares.size(), static_cast<std::size_t>(threads));
        for (const auto& share : shares) used.insert(share.begin(), share.end());
      }
      if (threads == 0) continue;
      ASSERT_EQ(std::vector<int>(used.begin(), used.end()), cores) << num_cores << " / " << size;
    }
  }
}

TEST(CorePinning, TooFewCoresGiveNoShares) {
  EXPECT_THAT(share_cores({4, 5}, {.threads = 3, .local_rank = 0, .local_size = 1}), IsEmpty());
  EXPECT_THAT(share_cores({4, 5}, {.threads = 2, .local_rank = 1, .local_size = 2}), IsEmpty());
  EXPECT_THAT(share_cores({4, 5}, {.threads = 1, .local_rank = 1, .local_size = 3}), IsEmpty())
      << "rank 0 would have none";
}

// Where each thread of the compute team may run, the caller first.
Shares team_cores(int threads) {
  Shares cores(static_cast<std::size_t>(threads));
  at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) {
    cores[static_cast<std::size_t>(at::get_thread_num())] = CoreMask::of_this_thread().cores();
  });
  return cores;
}

std::vector<int> cores_of_new_thread() {
  std::vector<int> cores;
  std::thread([&] { cores = CoreMask::of_this_thread().cores(); }).join();
  return cores;
}

TEST(CorePinning, TheTeamIsPinnedAndOtherThreadsAreNot) {
  const int before = at::get_num_threads();
  const std::vector<int> all = process_cores();
  const int threads = static_cast<int>(all.size());
  set_compute_threads({.threads = threads, .pin = true});
  Shares each;
  for (const int core : all) each.push_back({core});
  EXPECT_EQ(team_cores(threads), each);
  EXPECT_EQ(CoreMask::of_this_thread().cores(), each.front());
  EXPECT_EQ(cores_of_new_thread(), all) << "it must not inherit its starter's one core";

  set_compute_threads({.threads = threads, .pin = false});
  EXPECT_EQ(team_cores(threads), Shares(all.size(), all));
  EXPECT_EQ(cores_of_new_thread(), all);
  set_compute_threads({.threads = before});
}

TEST(CorePinning, AnotherRankHasOtherCores) {
  const std::vector<int> all = process_cores();
  if (all.size() < 2) GTEST_SKIP() << "needs two cores";
  EXPECT_EQ(pin_team({.threads = 1, .local_rank = 1, .local_size = 2}), "");
  const std::vector<int> second = CoreMask::of_this_thread().cores();
  EXPECT_EQ(pin_team({.threads = 1, .local_rank = 0, .local_size = 2}), "");
  std::vector<int> both = CoreMask::of_this_thread().cores();
  EXPECT_EQ(both.size(), all.size() / 2);
  both.insert(both.end(), second.begin(), second.end());
  EXPECT_EQ(both, all);
  unpin_team(1);
}

TEST(CorePinning, WithoutEnoughCoresNothingIsPinned) {
  const std::vector<int> all = process_cores();
  const int threads = static_cast<int>(all.size());
  ASSERT_EQ(pin_team({.threads = threads}), "");
  EXPECT_THAT(pin_team({.threads = threads + 1}),
              HasSubstr(std::to_string(threads + 1) + " threads share "));
  EXPECT_EQ(team_cores(1).front(), all) << "what was pinned is no longer";
}

}  // namespace
}  // namespace trireme

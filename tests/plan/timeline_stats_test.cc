// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/timeline_stats.h"

#include <gtest/gtest.h>

#include <vector>

namespace trireme::plan {
namespace {

TEST(TimelineStats, CountsEachMomentOnceAgainstTheWholeOfAllRanks) {
  // From 10 to 30: rank 4 computes 11 to 15 and 20 to 21 in spans that overlap or touch; rank 0 all
  // of the time; rank 2 only sends.
  const std::vector<TraceSpan> spans = {
      {4, "compute", "b", 13, 2, {}}, {0, "compute", "a", 10, 20, {}},
      {4, "compute", "c", 11, 3, {}}, {4, "compute", "d", 12, 1, {}},
      {2, "send", "s", 0, 50, {}},    {4, "compute", "e", 20, 1, {}}};
  const std::vector<RankUse> uses = rank_uses(spans);
  ASSERT_EQ(uses.size(), 3U);
  EXPECT_EQ(uses[0].rank, 0);
  EXPECT_DOUBLE_EQ(uses[0].busy_us, 20);
  EXPECT_DOUBLE_EQ(uses[0].bubble, 0);
  EXPECT_EQ(uses[1].rank, 2);
  EXPECT_DOUBLE_EQ(uses[1].busy_us, 0);
  EXPECT_DOUBLE_EQ(uses[1].bubble, 1);
  EXPECT_EQ(uses[2].rank, 4);
  EXPECT_DOUBLE_EQ(uses[2].busy_us, 5);
  EXPECT_DOUBLE_EQ(uses[2].bubble, 0.75);
}

TEST(TimelineStats, HasNothingToSayOfNothing) {
  EXPECT_TRUE(rank_uses({}).empty());
  const std::vector<RankUse> uses = rank_uses({{1, "send", "s", 0, 5, {}}});
  ASSERT_EQ(uses.size(), 1U);
  EXPECT_EQ(uses[0].bubble, 0);
}

}  // namespace
}  // namespace trireme::plan

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/shard_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;

TEST(ShardPlan, GroupsAreRanksSideBySideAndThoseAcross) {
  const ShardPlan plan(12, 4);
  EXPECT_EQ(plan.replicas(), 3);
  EXPECT_THAT(plan.shard_group(6), ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(plan.replica_group(6), ElementsAre(2, 6, 10));
  EXPECT_EQ(plan.replica_of(6), 1);
  EXPECT_EQ(plan.index_of(6), 2);
}

TEST(ShardPlan, AllRanksAreOneGroup) {
  const ShardPlan plan(5, 0);
  EXPECT_EQ(plan.replicas(), 1);
  EXPECT_EQ(plan.shard_ranks(), 5);
  EXPECT_THAT(plan.shard_group(3), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(plan.replica_group(3), ElementsAre(3));
}

TEST(ShardPlan, RefusesGroupsThatTheSumHasNoNodeFor) {
  EXPECT_THAT(failure_of([] { ShardPlan(6, 4); }), HasSubstr("on 4 ranks each"));
  EXPECT_THAT(failure_of([] { ShardPlan(6, 3); }), HasSubstr("use 1, 2, 6"));
  EXPECT_THAT(failure_of([] { ShardPlan(4, 8); }), HasSubstr("4 ranks cannot"));
  EXPECT_THAT(failure_of([] { ShardPlan(4, -2); }), HasSubstr("-2"));
  EXPECT_THAT(failure_of([] { ShardPlan(4, (std::int64_t{1} << 32) + 2); }),
              HasSubstr("4294967298"));
  EXPECT_EQ(failure_of([] { ShardPlan(6, 6); }), "no error");
}

TEST(HostShardRanks, AreThoseOfOneHost) {
  EXPECT_EQ(host_shard_ranks({0}), 1);
  EXPECT_EQ(host_shard_ranks({0, 0, 0}), 3) << "one host: all";
  EXPECT_EQ(host_shard_ranks({0, 0, 1, 1, 2, 2}), 2);
  EXPECT_EQ(host_shard_ranks({0, 1, 2}), 1);
}

TEST(HostShardRanks, RefusesHostsThatCannotKeepACopyEach) {
  const auto refusal = [](const std::vector<int>& hosts) {
    return failure_of([&] { host_shard_ranks(hosts); });
  };
  EXPECT_THAT(refusal({0, 0, 1, 1, 2}),
              HasSubstr("ConfigError: shard_ranks is auto, but the hosts have different numbers of "
                        "ranks (2 with 2, 1 with 1): start equally many"));
  EXPECT_THAT(refusal({0, 0, 0, 1, 1, 1}),
              HasSubstr("each of the 2 hosts has 3 ranks, which is no power of two"));
  EXPECT_THAT(refusal({0, 1, 1, 0}),
              HasSubstr("ranks 0 and 3 share a host and rank 2 between them is on another"));
}

TEST(ShardPlan, MicroBatchesAreSideBySideInACopyAndInterleavedAmongItsRanks) {
  EXPECT_THAT(ShardPlan(4, 0).rounds(12, 1), ElementsAre(ElementsAre(1, 5, 9)));
  EXPECT_THAT(ShardPlan(4, 2).rounds(8, 1), ElementsAre(ElementsAre(1, 3)));
  EXPECT_THAT(ShardPlan(4, 2).rounds(8, 2), ElementsAre(ElementsAre(4, 6)));
  EXPECT_THAT(ShardPlan(6, 2).rounds(0, 5), ElementsAre(ElementsAre(5)));
  // 2 copies of 12 each: 8, then 4, and the last round first.
  EXPECT_THAT(ShardPlan(4, 2).rounds(24, 3),
              ElementsAre(ElementsAre(21, 23), ElementsAre(9, 11, 13, 15)));
}

TEST(ShardPlan, EveryMicroBatchIsComputedOnce) {
  struct Case {
    int ranks, shard_ranks, micro_batches;
  };
  for (const auto& [ranks, shard_ranks, micro_batches] :
       std::vector<Case>{{4, 2, 12}, {8, 4, 24}, {6, 2, 24}, {3, 0, 3}, {4, 4, 20}}) {
    std::vector<int> times(static_cast<std::size_t>(micro_batches));
    const ShardPlan plan(ranks, shard_ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      for (const auto& round : plan.rounds(micro_batches, rank)) {
        for (const std::int64_t m : round) ++times[static_cast<std::size_t>(m)];
      }
    }
    EXPECT_THAT(times, ::testing::Each(1)) << ranks << " " << shard_ranks;
  }
}

TEST(ShardPlan, RefusesMicroBatchesThatCannotBeShared) {
  EXPECT_THAT(failure_of([] { ShardPlan(3, 0).rounds(6, 0); }),
              HasSubstr("3 ranks cannot share 6 micro-batches"));
  EXPECT_THAT(failure_of([] { ShardPlan(4, 0).rounds(6, 0); }), HasSubstr("6 micro-batches"));
  EXPECT_THAT(failure_of([] { ShardPlan(6, 2).rounds(18, 0); }), HasSubstr("share 18"));
  EXPECT_THAT(failure_of([] { ShardPlan(4, 2).rounds(6, 0); }), HasSubstr("share 6"));
}

}  // namespace
}  // namespace trireme

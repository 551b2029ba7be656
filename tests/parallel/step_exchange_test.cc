// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/step_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/ranks.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/communication_thread.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using testing::run_threads;

TEST(StepAccount, SumsEveryFieldByItself) {
  run_threads(3, [&](Group& group) {
    CommunicationThread thread(group.duplicate("steps"));
    StepAccount account({"a", "b", "c", "d"});
    account.add_weight(0.5);
    account.add_weight(group.rank());
    account.saw(0);
    if (group.rank() == 1) account.saw(1);
    account.saw(3);
    account.close(thread);
    EXPECT_EQ(account.report().weight, 4.5);
    EXPECT_THAT(account.report().unused, ElementsAre("c"));
    EXPECT_THAT(account.unused(), ElementsAre(2));
    EXPECT_EQ(account.report().waited_for_rank, -1) << "the first step has none before it";
    EXPECT_EQ(thread.group().bytes_sent(), (3 - 1) * 8 * (1 + 4 + 3)) << "to each other rank";
    account.close(thread);  // of nothing
    EXPECT_EQ(account.report().weight, 0);
    EXPECT_THAT(account.report().unused, ElementsAre("a", "b", "c", "d"));
    EXPECT_GE(account.report().waited_for_rank, 0);
    EXPECT_EQ(account.steps(), 2);
  });
}

TEST(DescribeSkew, WhoWaitedLeastCameLast) {
  StepReport report;
  describe_skew(std::vector<double>{50, 70.5, 3, 4}, report);
  EXPECT_EQ(report.waited_for_rank, 2);
  EXPECT_EQ(report.skew_us, 67.5);
  describe_skew(std::vector<double>{5, 5}, report);
  EXPECT_EQ(report.waited_for_rank, 0);
  EXPECT_EQ(report.skew_us, 0);
}

}  // namespace
}  // namespace trireme

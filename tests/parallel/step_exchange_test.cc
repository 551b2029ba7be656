// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/step_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::run_threads;

TEST(StepExchange, SumsEveryFieldByItself) {
  std::atomic<std::int64_t> sent = 0;
  run_threads(3, [&](Group& group) {
    const int rank = group.rank();
    StepNotes own{0.5 + rank, {1, rank == 1 ? 1.0 : 0.0, 0, 1}, {0, 0, 0}};
    own.wait_us[static_cast<std::size_t>(rank)] = 100.25 + rank;
    const StepNotes all = exchange_notes(group, own);
    EXPECT_EQ(all.weight, 4.5);
    EXPECT_THAT(all.used, ElementsAre(3, 1, 0, 3));
    EXPECT_THAT(all.wait_us, ElementsAre(100.25, 101.25, 102.25));
    sent += group.bytes_sent();
  });
  EXPECT_EQ(sent.load(), 3 * (3 - 1) * 8 * (1 + 4 + 3)) << "8 bytes for each number, to each rank";
}

TEST(StepExchange, OfNothingIsTheWeight) {
  run_threads(1, [](Group& group) {
    const StepNotes all = exchange_notes(group, {2.5, {}, {7}});
    EXPECT_EQ(all.weight, 2.5);
    EXPECT_THAT(all.used, IsEmpty());
    EXPECT_THAT(all.wait_us, ElementsAre(7));
  });
}

TEST(DescribeSkew, WhoWaitedLeastCameLast) {
  StepReport report;
  describe_skew({50, 70.5, 3, 4}, report);
  EXPECT_EQ(report.waited_for_rank, 2);
  EXPECT_EQ(report.skew_us, 67.5);
  describe_skew({5, 5}, report);
  EXPECT_EQ(report.waited_for_rank, 0);
  EXPECT_EQ(report.skew_us, 0);
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/rank_share.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using trireme::testing::run_threads;

// What each of n ranks takes of a step, in rank order.
std::vector<at::Tensor> shares_of_step(int n, std::int64_t step) {
  std::vector<at::Tensor> shares(static_cast<std::size_t>(n));
  run_threads(n, [&](Group& group) {
    shares[static_cast<std::size_t>(group.rank())] =
        SampleShares(23, 7, group, /*seed=*/5).of_step(step);
  });
  return shares;
}

TEST(RankShare, RanksCutTheSameStep) {
  const at::Tensor whole = shares_of_step(1, 4)[0];
  ASSERT_EQ(whole.numel(), 7);
  for (const int n : {2, 3, 7}) {
    const std::vector<at::Tensor> shares = shares_of_step(n, 4);
    EXPECT_TRUE(at::cat(shares).equal(whole)) << n;
    EXPECT_EQ(shares[0].numel() - shares.back().numel(), 7 % n == 0 ? 0 : 1) << n;
  }
}

TEST(RankShare, AnEpochVisitsEachSampleOnce) {
  std::vector<at::Tensor> steps;  // 23 steps of 7: seven epochs of 23
  for (std::int64_t step = 0; step < 23; ++step) steps.push_back(shares_of_step(1, step)[0]);
  const at::Tensor epochs = at::cat(steps).view({7, 23});
  for (std::int64_t epoch = 0; epoch < 7; ++epoch) {
    EXPECT_TRUE(std::get<0>(epochs[epoch].sort()).equal(at::arange(23))) << epoch;
  }
  EXPECT_FALSE(epochs[0].equal(epochs[1]));
}

TEST(RankShare, EachThingHasOneRank) {
  std::vector<Range> ranges(3);
  run_threads(3, [&](Group& group) {
    ranges[static_cast<std::size_t>(group.rank())] = share_of(11, group);
  });
  EXPECT_EQ(ranges[0].begin, 0);
  EXPECT_EQ(ranges[0].end, 4);
  EXPECT_EQ(ranges[1].begin, 4);
  EXPECT_EQ(ranges[1].end, 8);
  EXPECT_EQ(ranges[2].begin, 8);
  EXPECT_EQ(ranges[2].end, 11);
}

TEST(RankShare, TooFewAreNamed) {
  run_threads(2, [](Group& group) {
    EXPECT_THAT([&] { SampleShares(0, 7, group, 1); },
                ThrowsMessage<ConfigError>(HasSubstr("no samples")));
    EXPECT_THAT([&] { SampleShares(9, 1, group, 1); },
                ThrowsMessage<ConfigError>(HasSubstr("1 samples for 2 ranks")));
  });
}

}  // namespace
}  // namespace trireme::examples

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/micro_batch_plan.h"

#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/parallel/gradient_tree.h"

namespace trireme {
namespace {

constexpr std::int64_t kMaxMicroBatches = 48;

// A value whose f32 sums depend on the order in which they are added.
float leaf(std::int64_t micro_batch) {
  return static_cast<float>(std::sin(static_cast<double>(micro_batch) * 12.9898) * 43758.5453) *
         (micro_batch % 3 == 0 ? 1e-3F : 1.0F);
}

// The tree as the header states it.
float tree_sum(const std::vector<float>& values, std::int64_t begin, std::int64_t end) {
  if (end - begin == 1) return values[static_cast<std::size_t>(begin)];
  const auto middle = begin + static_cast<std::int64_t>(
                                  std::bit_floor(static_cast<std::uint64_t>(end - begin - 1)));
  return tree_sum(values, begin, middle) + tree_sum(values, middle, end);
}

// What a step does on `ranks` ranks, with the sum over ranks in the groups' fixed tree.
float planned_sum(std::int64_t micro_batches, int ranks) {
  const MicroBatchPlan plan(micro_batches, ranks);
  const std::size_t num_rounds = plan.rounds(0).size();
  float total = 0;
  for (std::size_t round = num_rounds; round-- > 0;) {
    std::vector<float> rank_sums;
    for (int rank = 0; rank < ranks; ++rank) {
      GradientTree tree(1);
      const MicroBatchRange range = plan.rounds(rank)[round];
      for (std::int64_t m = range.begin; m < range.end; ++m) {
        at::Tensor gradient = at::empty({1}, at::kFloat);
        *gradient.data_ptr<float>() = leaf(m);
        tree.push(gradient);
      }
      rank_sums.push_back(*tree.take().data_ptr<float>());
    }
    const float sum = tree_sum(rank_sums, 0, ranks);
    total = round + 1 == num_rounds ? sum : sum + total;
  }
  return total;
}

TEST(MicroBatchPlan, EveryMicroBatchIsComputedOnce) {
  for (std::int64_t micro_batches = 1; micro_batches <= kMaxMicroBatches; ++micro_batches) {
    for (const std::int64_t ranks : MicroBatchPlan::fitting_ranks(micro_batches)) {
      const MicroBatchPlan plan(micro_batches, static_cast<int>(ranks));
      std::vector<int> times(static_cast<std::size_t>(micro_batches), 0);
      for (int rank = 0; rank < ranks; ++rank) {
        for (const MicroBatchRange& range : plan.rounds(rank)) {
          EXPECT_TRUE(std::has_single_bit(static_cast<std::uint64_t>(range.end - range.begin)));
          for (std::int64_t m = range.begin; m < range.end; ++m)
            ++times.at(static_cast<std::size_t>(m));
        }
      }
      EXPECT_THAT(times, ::testing::Each(1)) << micro_batches << " on " << ranks;
    }
  }
}

TEST(MicroBatchPlan, TheSumHasTheSameBitsOnAnyNumberOfRanks) {
  int differs_from_plain_order = 0;
  for (std::int64_t micro_batches = 1; micro_batches <= kMaxMicroBatches; ++micro_batches) {
    std::vector<float> leaves;
    for (std::int64_t m = 0; m < micro_batches; ++m) leaves.push_back(leaf(m));
    const float expected = tree_sum(leaves, 0, micro_batches);
    for (const std::int64_t ranks : MicroBatchPlan::fitting_ranks(micro_batches)) {
      const float sum = planned_sum(micro_batches, static_cast<int>(ranks));
      EXPECT_EQ(std::memcmp(&sum, &expected, sizeof sum), 0) << micro_batches << " on " << ranks;
    }
    float plain = 0;
    for (const float value : leaves) plain += value;
    differs_from_plain_order += plain != expected ? 1 : 0;
  }
  EXPECT_GT(differs_from_plain_order, 10) << "the leaves must tell orders apart";
}

TEST(MicroBatchPlan, FittingRanks) {
  EXPECT_THAT(MicroBatchPlan::fitting_ranks(8), ::testing::ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(MicroBatchPlan::fitting_ranks(12), ::testing::ElementsAre(1, 2, 3, 4, 6, 12));
  EXPECT_THAT(MicroBatchPlan::fitting_ranks(9), ::testing::ElementsAre(1, 9));
}

TEST(MicroBatchPlan, RefusesWhatDoesNotFitWithWhatWould) {
  try {
    MicroBatchPlan(6, 4);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "4 workers cannot share 6 micro-batches a step: use 1, 2, 3, 6 workers, or change "
                 "batch.micro_batches");
  }
  EXPECT_THROW(MicroBatchPlan(2, 3), ConfigError);
  EXPECT_THROW(MicroBatchPlan(0, 1), ConfigError);
}

}  // namespace
}  // namespace trireme

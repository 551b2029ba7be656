// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/sharded_model.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/placements.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "tests/support/sharded_training.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Momentum;
using testing::run_sharded;
using testing::run_threads;
using testing::ShardedResult;

const std::int64_t kSteps = testing::ShardedRun().steps;

TEST(ShardedModel, EveryStageTrainsTheSameModelOnAnyNumberOfRanks) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      ShardedResult expected;
      run_threads(1, [&](Group& group) { expected = run_sharded(group, family, {}, dtype); });
      EXPECT_GT(expected.norms.back(), 0.0);
      for (const int stage : {0, 1, 2, 3}) {
        for (const int ranks : {1, 2, 4}) {
          run_threads(ranks, [&](Group& group) {
            const ShardedResult result = run_sharded(group, family, {.stage = stage}, dtype);
            const std::string what = family + " stage " + std::to_string(stage) + ", " +
                                     std::to_string(ranks) + " ranks, " + c10::toString(dtype);
            expect_same_training(result, expected, group.rank(), what);
          });
        }
      }
    }
  }
}

struct Copies {
  int ranks;
  int shard_ranks;
  std::int64_t micro_batches;
  std::int64_t rounds;  // in which gradients go from copy to copy
  int copies() const { return ranks / shard_ranks; }
};

// Of 28 micro-batches a copy has 14, which are 8, 4 and 2.
const std::vector<Copies> kCopies = {{4, 2, 8, 1},  {4, 1, 4, 1},  {6, 2, 6, 1},
                                     {6, 2, 12, 1}, {4, 2, 28, 3}, {8, 4, 16, 1}};

TEST(ShardedModel, CopiesInHostsTrainTheSameModelAsOneRank) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Copies& copies : kCopies) {
      ShardedResult expected;
      run_threads(1, [&](Group& group) {
        expected = run_sharded(group, "gpt2", {.micro_batches = copies.micro_batches}, dtype);
      });
      for (const int stage : {1, 2, 3}) {
        run_threads(copies.ranks, [&](Group& group) {
          const ShardedResult result = run_sharded(group, "gpt2",
                                                   {.stage = stage,
                                                    .micro_batches = copies.micro_batches,
                                                    .shard_ranks = copies.shard_ranks},
                                                   dtype);
          const std::string what =
              fmt::format("stage {}, {} ranks, {} to a copy, {} micro-batches, {}, rank {}", stage,
                          copies.ranks, copies.shard_ranks, copies.micro_batches,
                          c10::toString(dtype), group.rank());
          expect_same_training(result, expected, group.rank(), what);
          EXPECT_EQ(result.weights.defined(), group.rank() == 0) << what;
          EXPECT_EQ(result.across, kSteps * copies.rounds * 2 * (copies.copies() - 1) *
                                       result.elements * std::int64_t{sizeof(float)})
              << "each rank 2 (R - 1) / R of its pieces: " << what;
        });
      }
    }
  }
}

// Shared memory inside a copy, a socket between them.
TEST(ShardedModel, CopiesOnTwoHostsTrainTheSameModelAsOneRank) {
  ShardedResult expected;
  run_threads(1, [&](Group& group) { expected = run_sharded(group, "llama", {}, at::kFloat); });
  for (const int stage : {1, 2, 3}) {
    testing::run_placed({"shm+gloo", {0, 0, 1, 1}}, [&](Group& group) {
      const ShardedResult result =
          run_sharded(group, "llama", {.stage = stage, .shard_ranks = 2}, at::kFloat);
      expect_same_training(result, expected, group.rank(), fmt::format("stage {}", stage));
    });
  }
}

TEST(ShardedModel, KeepsACopyInEachHostWhereItIsTold) {
  ShardedResult expected;
  testing::run_placed({"shm+gloo", {0, 0, 1, 1}}, [&](Group& group) {
    const ShardedResult result =
        run_sharded(group, "gpt2", {.stage = 2, .shard_ranks = 2}, at::kFloat);
    if (group.rank() == 0) expected = result;
  });
  EXPECT_GT(expected.across, 0);
  testing::run_placed({"shm+gloo", {0, 0, 1, 1}}, [&](Group& group) {
    const ShardedResult result =
        run_sharded(group, "gpt2", {.stage = 2, .shard_ranks = kHostRanks}, at::kFloat);
    EXPECT_EQ(result.across, expected.across);
    EXPECT_EQ(result.inside, expected.inside);
    EXPECT_EQ(result.norms, expected.norms);
  });
  run_threads(3, [&](Group& group) {
    const ShardedResult result = run_sharded(
        group, "gpt2", {.stage = 2, .micro_batches = 3, .shard_ranks = kHostRanks}, at::kFloat);
    EXPECT_EQ(result.across, 0) << "one host, one copy";
  });
  testing::run_placed({"shm+gloo", {0, 0, 0, 1, 1}}, [](Group& group) {
    testing::Chain chain(2, at::kFloat);
    const auto refusal = [&](int stage) {
      return testing::failure_of([&] {
        const ShardedModel model(chain, group, {.stage = stage, .shard_ranks = kHostRanks});
      });
    };
    EXPECT_THAT(refusal(1), AllOf(HasSubstr("ConfigError"), HasSubstr("1 with 3, 1 with 2")));
    EXPECT_THAT(refusal(0), AllOf(HasSubstr("shard_ranks is auto"), HasSubstr("stage 0")));
  });
}

// Of 4 ranks in stage 1: inside go 2 (S - 1) / S of the model, and for the norm, the micro-batches'
// weights and the like next to nothing.
TEST(ShardedModel, WeightsStayInsideACopy) {
  run_threads(4, [](Group& group) {
    const ShardedResult result =
        run_sharded(group, "llama", {.stage = 1, .shard_ranks = 2}, at::kFloat);
    const std::int64_t of_model = kSteps * 4 * result.elements * std::int64_t{sizeof(float)};
    EXPECT_GE(result.inside, of_model);
    EXPECT_LE(result.inside, of_model * 11 / 10) << "all_gather over all ranks is 5/4";
  });
}

TEST(ShardedModel, RefusesCopiesThatCannotBe) {
  run_threads(6, [](Group& group) {
    testing::Chain chain(2, at::kFloat);
    const auto refusal = [&](const ShardOptions& options) {
      return testing::failure_of([&] { const ShardedModel model(chain, group, options); });
    };
    EXPECT_THAT(refusal({.stage = 2, .shard_ranks = 4}),
                AllOf(HasSubstr("ConfigError"), HasSubstr("6 ranks"), HasSubstr("4 ranks each")));
    EXPECT_THAT(refusal({.stage = 0, .shard_ranks = 2}),
                AllOf(HasSubstr("ConfigError"), HasSubstr("stage 0"), HasSubstr("shard_ranks")));
    EXPECT_THAT(refusal({.stage = 3, .micro_batches = 18, .shard_ranks = 2}),
                AllOf(HasSubstr("ConfigError"), HasSubstr("18 micro-batches")));
  });
}

// Rank 3's copy and rank 1's hold the same pieces, and rank 0 has nothing to do with rank 3.
TEST(ShardedModel, AFailureEndsAllCopiesByName) {
  for (const int stage : {1, 2, 3}) {
    run_threads(4, [&](Group& group) {
      testing::Chain chain(3, at::kFloat);
      ShardedModel sharded(chain, group, {.stage = stage, .micro_batches = 8, .shard_ranks = 2});
      Momentum optimizer(sharded);
      const auto run_step = [&](bool fails) {
        testing::run_gradients(sharded, chain, fails);
        sharded.step(optimizer, 0.1);
      };
      run_step(false);
      group.barrier();
      const std::string error = testing::failure_of([&] {
        run_step(group.rank() == 3);
        run_step(false);
      });
      EXPECT_THAT(error, HasSubstr("out of luck")) << "stage " << stage;
      if (group.rank() != 3) {
        EXPECT_THAT(error, AllOf(HasSubstr("CommError"), HasSubstr("rank 3 left")));
      }
    });
  }
}

}  // namespace
}  // namespace trireme

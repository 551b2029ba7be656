// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Every method: the same bits on any number of ranks and threads, and after a restart from its
// state.
#include <gtest/gtest.h>

#include "tests/optim/shard_run.h"
#include "tests/support/compute_threads.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using optim::OptimizerConfig;
using testing::ShardRun;

class EveryMethod : public ::testing::TestWithParam<OptimizerConfig> {};

INSTANTIATE_TEST_SUITE_P(
    Methods, EveryMethod,
    ::testing::Values(OptimizerConfig{.name = "sgd", .weight_decay = 0.1},
                      OptimizerConfig{.name = "sgd", .momentum = 0.0},
                      OptimizerConfig{.name = "adagrad", .weight_decay = 0.1},
                      OptimizerConfig{.name = "adam", .weight_decay = 0.1},
                      OptimizerConfig{.name = "adamw"}, OptimizerConfig{.name = "lion"},
                      OptimizerConfig{.name = "sgd", .state = "8bit"},
                      OptimizerConfig{.name = "adam", .state = "8bit"},
                      OptimizerConfig{.name = "adamw", .state = "8bit"},
                      OptimizerConfig{.name = "lion", .state = "8bit"},
                      OptimizerConfig{.name = "lamb"}, OptimizerConfig{.name = "muon"},
                      OptimizerConfig{.name = "adafactor"},
                      OptimizerConfig{.name = "adafactor", .momentum = 0.9, .weight_decay = 0.1}),
    [](const auto& test) {
      return std::to_string(test.index) + "_" + test.param.name + "_" + test.param.state;
    });

TEST_P(EveryMethod, AnyNumberOfRanksGivesTheSameBits) {
  const ShardRun whole(GetParam(), {});
  EXPECT_TRUE(whole.weights.isfinite().all().item<bool>());
  EXPECT_FALSE(whole.weights.equal(testing::odd_values(0)));
  for (const int ranks : {1, 2, 3, 4}) {
    const ShardRun run(GetParam(), {.ranks = ranks});
    EXPECT_TRUE(run.weights.equal(whole.weights)) << ranks << " ranks";
    EXPECT_TRUE(run.copy.equal(whole.copy)) << ranks << " ranks";
  }
}

TEST_P(EveryMethod, ThreadsDoNotMatter) {
  const testing::ComputeThreads one(1);
  const ShardRun expected(GetParam(), {});
  const testing::ComputeThreads more(3);
  EXPECT_TRUE(ShardRun(GetParam(), {}).weights.equal(expected.weights));
}

TEST_P(EveryMethod, GoesOnFromItsState) {
  const ShardRun unbroken(GetParam(), {});
  for (const int ranks : {0, 3}) {
    const ShardRun restarted(GetParam(), {.ranks = ranks, .restart_after = 2});
    EXPECT_TRUE(restarted.weights.equal(unbroken.weights)) << ranks << " ranks";
    EXPECT_TRUE(restarted.copy.equal(unbroken.copy)) << ranks << " ranks";
  }
}

TEST_P(EveryMethod, RefusesStateThatIsNotItsOwn) {
  const auto optimizer = optim::make_optimizer(GetParam(), testing::odd_space());
  std::vector<optim::OptimizerState> state = optimizer->state();
  state.push_back({.name = "another", .values = torch::zeros({3})});
  EXPECT_THROW(optimizer->set_state(state), ShapeError);
  state.pop_back();
  if (state.empty()) return;
  state[0].values = torch::zeros({3});
  EXPECT_THROW(optimizer->set_state(state), ShapeError);
}

TEST(OptimizerSpace, RefusesWhatIsOutOfOrder) {
  const auto make = [](auto change) {
    optim::OptimizerSpace space = testing::odd_space();
    change(space);
    optim::make_optimizer({}, space);
  };
  EXPECT_THROW(make([](auto& space) { space.segments[1].begin -= 1; }), ShapeError);
  EXPECT_THROW(make([](auto& space) { space.segments[0].end -= 1; }), ShapeError);
  EXPECT_THROW(make([](auto& space) { std::swap(space.segments[0], space.segments[1]); }),
               ShapeError);
  EXPECT_THROW(make([](auto& space) { space.parameters[1].entry.offset -= 65; }), ShapeError);
  EXPECT_THROW(make([](auto& space) { space.segments.pop_back(); }), ShapeError);
  EXPECT_THROW(make([](auto& space) { space.device = at::kMeta; }), ShapeError);
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Dense parameters on real servers, in one process.

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"

namespace trireme::ps {
namespace {

class DenseJob : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(DenseJob, SyncGivesTheBitsOfOneOptimizerOverASum) {
  const auto [servers, workers] = GetParam();
  for (const char* optimizer : {"sgd", "adagrad", "adamw", "lion"}) {
    Job job({.servers = servers, .workers = workers});
    const JobLayout layout = dense_layout(optimizer);
    const std::vector<float> expected = reference(layout, workers, 5);
    job.run(layout, [&](Worker& worker) {
      begin(worker);
      EXPECT_TRUE((train(worker, {.steps = 5}) == Values{expected, {}}))
          << optimizer << " rank " << worker.rank();
    });
    EXPECT_TRUE(job.coordinator().wait_for(std::chrono::seconds(10)));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, DenseJob,
                         testing::Values(std::tuple(1, 1), std::tuple(1, 3), std::tuple(2, 2),
                                         std::tuple(3, 5)));

// Methods that look at whole parameters: of two matrices and more, in ranges between them.
JobLayout whole_parameter_layout(const std::string& optimizer) {
  JobLayout layout = dense_layout(optimizer);
  layout.dense.parameters = {
      {.entry = {"embedding", {2, kShardBlock}, 0, 2 * kShardBlock}, .decays = true},
      {.entry = {"tall", {100, 50}, 2 * kShardBlock + 64, 5000},
       .decays = true,
       .hidden_matrix = true},
      {.entry = {"scale", {33}, 3 * kShardBlock + 1000, 33}},
      {.entry = {"wide", {31, 260}, 4 * kShardBlock, 8060}, .decays = true, .hidden_matrix = true},
      {.entry = {"cube", {3, 5, 70}, 8 * kShardBlock + 128, 1050}, .decays = true},
      {.entry = {"bias", {777}, 10 * kShardBlock, 777}},
  };
  return layout;
}

class WholeParameters
    : public testing::TestWithParam<std::tuple<std::string, std::tuple<int, int>>> {};

TEST_P(WholeParameters, SyncGivesTheBitsOfOneOptimizerOverASum) {
  const auto [optimizer, sizes] = GetParam();
  const auto [servers, workers] = sizes;
  const JobLayout layout = whole_parameter_layout(optimizer);
  ASSERT_GT(layout.dense_ranges().size(), 2U);
  const std::vector<float> expected = reference(layout, workers, 5);
  Job job({.servers = servers, .workers = workers});
  job.run(layout, [&](Worker& worker) {
    begin(worker);
    EXPECT_TRUE((train(worker, {.steps = 5}) == Values{expected, {}})) << worker.rank();
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, WholeParameters,
                         testing::Combine(testing::Values(std::string("lamb"), "muon", "adafactor"),
                                          testing::Values(std::tuple(1, 2), std::tuple(1, 3),
                                                          std::tuple(2, 2), std::tuple(2, 3))));

}  // namespace
}  // namespace trireme::ps

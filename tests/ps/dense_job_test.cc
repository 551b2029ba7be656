// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Dense parameters on real servers, in one process.

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace trireme::ps

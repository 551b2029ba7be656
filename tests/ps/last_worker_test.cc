// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Worker::wait_for_others_to_leave().

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "tests/ps/job.h"
#include "trireme/base/error.h"

namespace trireme::ps {
namespace {

JobLayout small_layout() {
  JobLayout layout;
  layout.sparse.tables = {{.name = "rows", .width = 3}};
  layout.sparse.slices = 2;
  return layout;
}

TEST(LastWorker, IsAloneWhenTheOthersHaveLeftOrAreGone) {
  Job job({.servers = 1, .workers = 3});
  std::atomic<int> left = 0;
  job.run(small_layout(), [&](Worker& worker) {
    if (worker.rank() == 1) {
      worker.wait_for_others_to_leave();
      EXPECT_EQ(left, 2);
      return;
    }
    ++left;  // and then this one leaves
  });
}

TEST(LastWorker, NamesThoseWhoStay) {
  Job job({.servers = 1, .workers = 2});
  std::unique_ptr<Worker> other;
  std::thread joins(
      [&] { other = std::make_unique<Worker>(job.worker_options(1), small_layout()); });
  WorkerOptions options = job.worker_options(0);
  options.timeout = std::chrono::milliseconds(200);
  Worker worker(options, small_layout());
  joins.join();
  EXPECT_THAT([&] { worker.wait_for_others_to_leave(); },
              ::testing::ThrowsMessage<TimeoutError>(::testing::HasSubstr("workers 0, 1")));
}

}  // namespace
}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/strategy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::failure_of;
using ::testing::HasSubstr;

// What torchrun says, for as long as it lives.
class TorchrunEnvironment {
 public:
  TorchrunEnvironment(int size, int local_size)
      : variables_{{"RANK", "0"},
                   {"WORLD_SIZE", std::to_string(size)},
                   {"LOCAL_RANK", "0"},
                   {"LOCAL_WORLD_SIZE", std::to_string(local_size)},
                   {"MASTER_ADDR", "127.0.0.1"},
                   {"MASTER_PORT", "1"}} {
    for (const auto& [name, value] : variables_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  TorchrunEnvironment(const TorchrunEnvironment&) = delete;
  TorchrunEnvironment& operator=(const TorchrunEnvironment&) = delete;
  ~TorchrunEnvironment() {
    for (const auto& [name, value] : variables_) ::unsetenv(name.c_str());
  }

 private:
  std::vector<std::pair<std::string, std::string>> variables_;
};

// All before a socket is opened: nobody would come to these worlds.
TEST(Strategy, RefusesAnotherNumberThanTheLauncherHasStarted) {
  const TorchrunEnvironment environment(3, 3);
  EXPECT_THAT(failure_of([] { MirroredStrategy({.workers = 2}); }),
              HasSubstr("asks for 2 workers, but torchrun has already started 3"));
  EXPECT_THAT(failure_of([] { ShardedStrategy({.workers = 4}); }), HasSubstr("4 workers"));
}

TEST(MirroredStrategy, RefusesSeveralHosts) {
  const TorchrunEnvironment environment(6, 3);
  EXPECT_THAT(failure_of([] { MirroredStrategy strategy; }),
              HasSubstr("torchrun has started 3 of 6 here: use MultiWorkerMirroredStrategy"));
}

TEST(Strategy, RefusesNumbersOutOfRange) {
  EXPECT_THAT(failure_of([] { MirroredStrategy({.workers = 0}); }), HasSubstr("workers 0"));
  EXPECT_THAT(failure_of([] { MirroredStrategy({.threads = -1}); }), HasSubstr("threads -1"));
  EXPECT_THAT(failure_of([] { ShardedStrategy({.micro_batches = -2}); }),
              HasSubstr("micro_batches -2"));
}

TEST(MultiWorkerMirroredStrategy, IsAWorldOfOneWhereNothingHasLaunchedIt) {
  MultiWorkerMirroredStrategy strategy;
  EXPECT_EQ(strategy.size(), 1);
  EXPECT_EQ(strategy.rank(), 0);
  strategy.close();
  strategy.close();
}

}  // namespace
}  // namespace trireme

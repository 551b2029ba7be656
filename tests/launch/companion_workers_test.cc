// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a program that starts its own workers is like from outside (tests/programs/companions.cc).
// Its workers share its stdout, so run_program() returns only when the last of them has ended.

#include "trireme/launch/companion_workers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "tests/support/program.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::ProgramResult;

ProgramResult run(const std::string& mode) {
  return testing::run_program({TRIREME_COMPANIONS, mode});
}

TEST(CompanionWorkers, ThisProcessIsRankZeroAndWaitsForTheOthers) {
  const ProgramResult result = run("sum");
  EXPECT_EQ(result.out, "sum 33\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST(CompanionWorkers, OneThatFailsAfterwardsIsNamed) {
  const ProgramResult result = run("fail");
  EXPECT_EQ(result.out, "sum 33\nworker 1 ended with status 3\n");
  EXPECT_EQ(result.exit_code, 5) << result.err;
}

TEST(CompanionWorkers, OneThatDiesIsLostToTheOthersAndNobodyIsLeft) {
  const ProgramResult result = run("lost");
  EXPECT_THAT(result.out, ::testing::HasSubstr("lost rank 2\n"));
  EXPECT_EQ(result.exit_code, 6) << result.err;
}

TEST(CompanionWorkers, DieWithTheProcessThatStartedThem) {
  EXPECT_EQ(run("vanish").signal, SIGKILL);
}

TEST(CompanionWorkers, RefusesToBeAlone) { EXPECT_THROW(CompanionWorkers(1), ConfigError); }

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The mpi engine between ranks that mpirun starts: programs/mpi_ranks.cc, which compares what it
// gets with the scalar tree, as the tests of the other engines do.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/mpirun.h"
#include "tests/support/program.h"
#include "trireme/base/error.h"
#include "trireme/comm/mpi/mpi_support.h"
#include "trireme/comm/world.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::Program;
using testing::ProgramResult;

constexpr const char* kProgram = TRIREME_BINARY_DIR "/tests/mpi_ranks";

ProgramResult run_ranks(int n, const std::vector<std::string>& arguments,
                        const Program::Environment& more = {}) {
  std::vector<std::string> command{kProgram};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return testing::run_under_mpirun(n, command, more);
}

// Seconds until mpirun kills the other ranks when it has seen one end, for them to speak.
const Program::Environment kTimeToSpeak{{"OMPI_MCA_odls_base_sigkill_timeout", "2"}};

class MpiEngine : public ::testing::Test {
 protected:
  void SetUp() override {
    if (mpi_library().empty()) GTEST_SKIP() << "this build has no MPI";
  }
};

class MpiRanks : public MpiEngine, public ::testing::WithParamInterface<int> {};

void expect_all_ok(const ProgramResult& result, int ranks) {
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  for (int rank = 0; rank < ranks; ++rank) {
    EXPECT_THAT(result.out, HasSubstr("rank " + std::to_string(rank) + ": ok\n")) << result.err;
  }
}

TEST_P(MpiRanks, OperationsGiveTheBitsOfTheTree) {
  expect_all_ok(run_ranks(GetParam(), {"operations"}), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Sizes, MpiRanks, ::testing::Values(1, 2, 3, 5));

// What goes over sockets is cut and completed in other ways than what goes through shared memory.
TEST_F(MpiEngine, OperationsOverTcp) {
  const Program::Environment tcp{{"OMPI_MCA_btl", "self,tcp"}};
  expect_all_ok(run_ranks(3, {"operations"}, tcp), 3);
  expect_all_ok(run_ranks(3, {"messages"}, tcp), 3);
}

TEST_F(MpiEngine, ManyMessagesAtOnceInAnyOrderOfTags) {
  expect_all_ok(run_ranks(3, {"messages"}), 3);
}

TEST_F(MpiEngine, GroupsWorkAtTheSameTime) { expect_all_ok(run_ranks(3, {"groups"}), 3); }

TEST_F(MpiEngine, LettersKeepTheOrderOfTheirLane) {
  const Program::Environment asks_for_room{{"OMPI_MCA_btl", "self,tcp"},
                                           {"OMPI_MCA_btl_tcp_eager_limit", "1024"}};
  expect_all_ok(run_ranks(3, {"overtaking"}, asks_for_room), 3);
}

TEST_F(MpiEngine, WhatIsSentLastArrives) { expect_all_ok(run_ranks(3, {"last_words"}), 3); }

TEST_F(MpiEngine, OneWorldAfterTheOther) { expect_all_ok(run_ranks(2, {"two_worlds"}), 2); }

TEST_F(MpiEngine, BesideTheProgramsOwnMessagesAndInAnotherOrderOfRanks) {
  expect_all_ok(run_ranks(3, {"own_mpi"}), 3);
}

TEST_F(MpiEngine, BetweenHosts) {
  const ProgramResult result = run_ranks(4, {"operations", "shm+mpi", "0011"});
  expect_all_ok(result, 4);
  EXPECT_THAT(result.err, ContainsRegex("ranks 0, 1 on [^ ]+ by shm, ranks 2, 3 on [^ ]+ by shm, "
                                        "between hosts by mpi"));
  expect_all_ok(run_ranks(5, {"operations", "shm+mpi", "01011"}), 5);
  expect_all_ok(run_ranks(4, {"messages", "shm+mpi", "0011"}), 4);
}

TEST_F(MpiEngine, SurvivorsNameTheKilledRank) {
  const ProgramResult result = run_ranks(3, {"kill"}, kTimeToSpeak);
  EXPECT_NE(result.exit_code, 0);
  for (const char* rank : {"0", "2"}) {
    // In the log before the error has reached whoever waits.
    const std::string number(rank);
    EXPECT_THAT(result.err, ContainsRegex("error \\[" + number + "/3\\] rank 1 on .* is lost"));
    EXPECT_THAT(result.out, ContainsRegex("rank " + number + ": PeerLostError 1: rank 1 on "));
  }
}

TEST_F(MpiEngine, SurvivorsNameTheStoppedRank) {
  const ProgramResult result = run_ranks(3, {"stop"}, kTimeToSpeak);
  EXPECT_NE(result.exit_code, 0);
  // A rank that the stopped one keeps in the operation before has not arrived either.
  for (const char* rank : {"0", "2"}) {
    EXPECT_THAT(result.out,
                ContainsRegex("rank " + std::string(rank) +
                              ": TimeoutError: group world: ranks? ([02], )?1(, [02])?( on "
                              "[^,]*)? did not arrive at operation [0-9]+, all_reduce\\("));
  }
}

TEST_F(MpiEngine, AMismatchShowsBothSides) {
  const ProgramResult result = run_ranks(3, {"mismatch"}, kTimeToSpeak);
  for (const char* rank : {"0", "1", "2"}) {
    const std::string line = "rank " + std::string(rank) + ": CommError: [^\n]*";
    // Whoever sees it first tells its own side first.
    EXPECT_THAT(
        result.out,
        AllOf(ContainsRegex(line + "rank [02] on [^ ]+ calls all_reduce\\(sum of 70000 x f32\\)"),
              ContainsRegex(line + "rank 1 on [^ ]+ calls all_reduce\\(sum of 70001 x f32\\)")))
        << result.err;
  }
  EXPECT_THAT(run_ranks(2, {"message_mismatch"}, kTimeToSpeak).out,
              AllOf(ContainsRegex("rank 0: CommError: .*recv\\(100004 x.*send\\(100003 x"),
                    ContainsRegex("rank 1: CommError: .*recv\\(100004 x.*send\\(100003 x")));
}

TEST_F(MpiEngine, WaitingForARankThatHasLeftIsAnError) {
  EXPECT_THAT(
      run_ranks(3, {"left"}, kTimeToSpeak).out,
      AllOf(ContainsRegex("rank 0: CommError: .*rank 1 on .* has left"), HasSubstr("rank 1: ok"),
            ContainsRegex("rank 2: CommError: .*rank 1 on .* has left")));
}

TEST_F(MpiEngine, RefusesAWorldOfAnotherSize) {
  EXPECT_THAT(run_ranks(2, {"too_many"}).out,
              HasSubstr("ConfigError: the mpi engine was asked for, but MPI has 2 ranks and the "
                        "world has 3; start as many by mpirun"));
}

TEST_F(MpiEngine, RefusesTwoRanksInOneProcess) {
  EXPECT_THAT(run_ranks(2, {"same_rank"}).out,
              HasSubstr("rank 0: ConfigError: ranks 0 and 1 are both rank 0 of MPI"));
}

TEST_F(MpiEngine, RefusesAnMpiWithoutThreads) {
  EXPECT_THAT(run_ranks(2, {"single"}).out,
              HasSubstr("ConfigError: MPI gives this process MPI_THREAD_SINGLE, and the mpi engine "
                        "needs MPI_THREAD_SERIALIZED"));
}

// Before any socket opens: nobody listens at this port.
TEST(MpiEngineRefusal, WithoutALauncherOrABuildThatHasMpi) {
  for (const char* engine : {"mpi", "shm+mpi"}) {
    WorldOptions options;
    options.rank = 1;
    options.size = 2;
    options.engine = engine;
    try {
      join_world(options);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(),
                  mpi_library().empty()
                      ? HasSubstr("this build has no MPI: install libopenmpi-dev or libmpich-dev")
                      : HasSubstr("no MPI launcher started this process; start it by mpirun"));
    }
  }
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A program that calls init() and nothing else, examples/01_hello_group.cc, under the real mpirun
// and a real Slurm: each rank finds out who it is, and they meet.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/mpirun.h"
#include "tests/support/slurm_cluster.h"
#include "tests/support/temporary_folder.h"

namespace trireme {
namespace {

using testing::ProgramResult;
using testing::SlurmCluster;

const std::string kHello = TRIREME_BINARY_DIR "/examples/01_hello_group";

void expect_prints(const ProgramResult& result, const std::string& text) {
  EXPECT_EQ(result.out, text) << result.err;
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST(RealMpirun, RanksMeetAndSum) {
  if (std::string(TRIREME_MPIEXEC).empty()) GTEST_SKIP() << "this build has no MPI";
  expect_prints(testing::run_under_mpirun(3, {kHello}), "3 ranks, sum 6\n");
  expect_prints(testing::run_under_mpirun(1, {kHello}), "1 ranks, sum 1\n");
}

class RealSlurm : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!slurm_.unavailable().empty()) GTEST_SKIP() << slurm_.unavailable();
  }
  void TearDown() override {
    if (HasFailure()) std::printf("%s", slurm_.log().c_str());
  }

  SlurmCluster slurm_;
};

TEST_F(RealSlurm, TasksOfAStepMeetAndSum) {
  expect_prints(slurm_.run({"srun", "-n", "3", kHello}), "3 ranks, sum 6\n");
  expect_prints(slurm_.run({"srun", "-n", "5", kHello}), "5 ranks, sum 15\n");
}

// Slurm gives a shell of salloc and a batch script the number of tasks of the job, too.
TEST_F(RealSlurm, WhatIsNoStepOfSeveralTasksIsNoRank) {
  expect_prints(slurm_.run({"srun", "-n", "1", kHello}), "1 ranks, sum 1\n");
  expect_prints(slurm_.run({"salloc", "-n", "3", kHello}), "1 ranks, sum 1\n");
  expect_prints(slurm_.run({"salloc", "-n", "3", "srun", kHello}), "3 ranks, sum 6\n");
  const testing::TemporaryFolder folder;
  const ProgramResult batch = slurm_.run({"sbatch", "--wait", "-n", "3", "-o", folder / "out", "-e",
                                          folder / "err", "--wrap", kHello + " && srun " + kHello});
  EXPECT_EQ(batch.exit_code, 0) << batch.err;
  EXPECT_EQ(testing::read_text(folder / "out"), "1 ranks, sum 1\n3 ranks, sum 6\n")
      << testing::read_text(folder / "err");
}

// Their ports are derived from the step's number.
TEST_F(RealSlurm, TwoStepsOfOneJobDoNotMeet) {
  const std::string step = "srun --overlap -n 2 " + kHello;
  expect_prints(slurm_.run({"salloc", "-n", "4", "sh", "-c", step + " & " + step + "; wait"}),
                "2 ranks, sum 3\n2 ranks, sum 3\n");
}

}  // namespace
}  // namespace trireme

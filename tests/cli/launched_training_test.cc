// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme train as ranks of trireme launch, of the real mpirun and of a real Slurm: the run of one
// process alone, bit for bit.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"
#include "tests/support/mpirun.h"
#include "tests/support/ranks.h"
#include "tests/support/slurm_cluster.h"

namespace trireme::testing {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

class LaunchedTrainingTest : public CliTest {
 protected:
  void expect_the_run_of_one(const ProgramResult& result, const std::string& out) {
    ASSERT_EQ(result.exit_code, 0) << result.err;
    train_or_fail("alone");
    ASSERT_EQ(losses("alone").size(), 12U);
    EXPECT_EQ(losses(out), losses("alone"));
    EXPECT_EQ(weights(out, 12), weights("alone", 12));
  }
  static std::vector<std::string> joined(std::vector<std::string> first,
                                         const std::vector<std::string>& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
  }
  // Until the run has made some steps.
  void await_steps(const std::string& out) const {
    await([&] {
      return std::filesystem::exists(path(out) + "/metrics.jsonl") && losses_so_far(out) > 2;
    });
  }
  std::ptrdiff_t losses_so_far(const std::string& out) const {
    const std::string text = read_text(path(out) + "/metrics.jsonl");
    return std::count(text.begin(), text.end(), '\n');
  }
};

TEST_F(LaunchedTrainingTest, ByOurLauncher) {
  const ProgramResult result =
      run_program(joined({kTrireme, "launch", "-n", "2", "--"}, train_command("launched")));
  expect_the_run_of_one(result, "launched");
  EXPECT_EQ(read_text(path("launched/config.yaml")).empty(), false) << "rank 0 prepares the run";
}

TEST_F(LaunchedTrainingTest, ByMpirun) {
  if (std::string(TRIREME_MPIEXEC).empty()) GTEST_SKIP() << "this build has no MPI";
  expect_the_run_of_one(run_under_mpirun(2, train_command("launched")), "launched");
}

TEST_F(LaunchedTrainingTest, BySlurm) {
  const SlurmCluster slurm;
  if (!slurm.unavailable().empty()) GTEST_SKIP() << slurm.unavailable();
  const ProgramResult result = slurm.run(joined({"srun", "-n", "2"}, train_command("launched")));
  expect_the_run_of_one(result, "launched");
  if (HasFailure()) std::printf("%s", slurm.log().c_str());
}

// srun starts one launcher for each half of the job, as it would on two nodes.
TEST_F(LaunchedTrainingTest, ByLaunchersThatSlurmStarts) {
  const SlurmCluster slurm;
  if (!slurm.unavailable().empty()) GTEST_SKIP() << slurm.unavailable();
  const Listener listener = listen_on_free_port();
  ::close(listener.fd);
  const std::string command =
      kTrireme + " launch -n 2 --nodes $SLURM_NTASKS --node-rank " +
      "$SLURM_PROCID --rendezvous 127.0.0.1:" + std::to_string(listener.port) + " -- \"$@\"";
  const ProgramResult result =
      slurm.run(joined({"srun", "-n", "2", "sh", "-c", command, "sh"}, train_command("launched")));
  expect_the_run_of_one(result, "launched");
  EXPECT_THAT(result.err, HasSubstr("4 ranks have met"));
  // Without --nodes each task would train the whole run.
  expect_refused(
      slurm.run(joined({"srun", "-n", "2", "-K0", "sh", "-c",
                        "[ $SLURM_PROCID = 1 ] || exec \"$@\"", "sh", kTrireme, "launch", "--"},
                       train_command("refused"))),
      {"Slurm has already started 2 ranks", "--nodes"});
}

TEST_F(LaunchedTrainingTest, WorkersOfOneLauncherAreEnough) {
  const std::vector<std::string> launch = {kTrireme, "launch", "-n", "2", "--prefix", "--"};
  const ProgramResult result =
      run_program(joined(launch, train_command("refused", {"--workers", "2"})));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("[1] trireme: error: --workers 2 starts workers, but trireme "
                                    "has already started 2"));
  expect_refused(train("refused", {"--prepared"}), {"--prepared", "--workers"});
  EXPECT_FALSE(std::filesystem::exists(path("refused")));
}

// Each launcher's workers on a host of their own, as TRIREME_HOST_ID has it.
TEST_F(LaunchedTrainingTest, KeepsACopyOfTheModelInEachHost) {
  const Listener listener = listen_on_free_port();
  ::close(listener.fd);
  const auto launcher = [&](const std::string& node) {
    return joined({kTrireme, "launch", "-n", "2", "--nodes", "2", "--node-rank", node,
                   "--rendezvous", "127.0.0.1:" + std::to_string(listener.port), "--"},
                  train_command("run", {"parallel.shard=2", "parallel.shard_ranks=auto"}));
  };
  Program first(launcher("0"), {{"TRIREME_HOST_ID", "left"}});
  Program second(launcher("1"), {{"TRIREME_HOST_ID", "right"}});
  EXPECT_EQ(second.wait(seconds(60)).exit_code, 0);
  const ProgramResult result = first.wait(seconds(60));
  expect_the_run_of_one(result, "run");
  EXPECT_THAT(result.err,
              HasSubstr("parallel.shard_ranks is auto: the 2 workers of each host keep a copy"));
  EXPECT_THAT(read_text(path("run/config.yaml")), HasSubstr("shard_ranks: auto"));
}

// Before any worker is met: nobody would come.
TEST_F(LaunchedTrainingTest, RefusesCopiesInHostsThatCannotHaveThem) {
  const auto refused = [&](const std::string& size, const std::string& local_size) {
    return run_program(train_command("run", {"parallel.shard=1", "parallel.shard_ranks=auto"}),
                       seconds(60),
                       {{"RANK", "0"},
                        {"WORLD_SIZE", size},
                        {"LOCAL_RANK", "0"},
                        {"LOCAL_WORLD_SIZE", local_size},
                        {"MASTER_ADDR", "127.0.0.1"},
                        {"MASTER_PORT", "1"}});
  };
  expect_refused(refused("4", "3"), {"parallel.shard_ranks is auto", "3 of 4 workers"});
  expect_refused(refused("6", "3"), {"3 of 6 workers", "a power of two"});
  EXPECT_FALSE(std::filesystem::exists(path("run")));
}

TEST_F(LaunchedTrainingTest, CtrlCSavesAndEndsAll) {
  Program program(joined({kTrireme, "launch", "-n", "2", "--"},
                         train_command("run", {"train.steps=100000", "checkpoint.every=0"})));
  await_steps("run");
  program.send(SIGINT);
  const ProgramResult result = program.wait(seconds(30));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("--resume"));
}

// A launcher sees only its own workers; the ranks of the other one see the loss themselves.
TEST_F(LaunchedTrainingTest, ADeadWorkerEndsTheJobOfBothLaunchers) {
  const Listener listener = listen_on_free_port();
  ::close(listener.fd);
  const auto launcher = [&](const std::string& node) {
    return joined({kTrireme, "launch", "-n", "2", "--nodes", "2", "--node-rank", node,
                   "--rendezvous", "127.0.0.1:" + std::to_string(listener.port), "--"},
                  train_command("run", {"train.steps=100000"}));
  };
  Program first(launcher("0"));
  Program second(launcher("1"));
  await_steps("run");
  const std::vector<pid_t> workers = second.children();
  ASSERT_EQ(workers.size(), 2U);
  ::kill(workers[1], SIGKILL);
  const ProgramResult near = second.wait(seconds(30));
  EXPECT_EQ(near.exit_code, 1);
  EXPECT_THAT(near.err, HasSubstr("worker 3 (pid " + std::to_string(workers[1]) +
                                  ") was killed by signal 9"));
  const ProgramResult far = first.wait(seconds(30));
  EXPECT_EQ(far.exit_code, 1);
  EXPECT_THAT(far.err, HasSubstr("rank 3 on "));
  EXPECT_THAT(far.err, HasSubstr("worker 0 (pid "));
}

}  // namespace
}  // namespace trireme::testing

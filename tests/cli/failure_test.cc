// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Signals, killed workers, killed jobs: real processes, real signals.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/cli/fixture.h"
#include "trireme/base/deadline.h"
#include "trireme/base/random.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

class FailureTest : public CliTest {
 protected:
  // A run long enough to be interrupted anywhere.
  std::vector<std::string> long_run(const std::string& out,
                                    std::vector<std::string> more = {}) const {
    more.insert(more.end(),
                {"train.steps=60", "checkpoint.every=5", "evaluation.every=20", "--workers", "2"});
    return train_command(out, more);
  }
  std::size_t lines(const std::string& file) const {
    if (!fs::exists(path(file))) return 0;
    const std::string text = read_text(path(file));
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  }
  bool saving(const std::string& out) const {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(path(out) + "/checkpoints", error)) {
      if (entry.path().extension() == ".tmp") return true;
    }
    return false;
  }
};

TEST_F(FailureTest, KilledTenTimesTheRunEndsInTheSameWeights) {
  ASSERT_EQ(run_program(long_run("whole")).exit_code, 0);
  const RandomStream random(99, "kill moments");
  std::size_t kills_while_saving = 0;
  for (std::uint64_t kill = 0; kill < 10; ++kill) {
    Program program(long_run("killed", fs::exists(path("killed/config.yaml"))
                                           ? std::vector<std::string>{"--resume"}
                                           : std::vector<std::string>{}));
    // Some steps on, at a random moment of a step; every other time at the next sight of a save.
    const std::size_t target = lines("killed/metrics.jsonl") + random.bits(kill) % 7;
    await([&] {
      return lines("killed/metrics.jsonl") > target || lines("killed/metrics.jsonl") >= 62;
    });
    if (kill % 2 == 0) {
      await([&] { return saving("killed") || !program.running(); });
      kills_while_saving += saving("killed") ? 1 : 0;
    }
    const std::vector<pid_t> workers = program.children();
    for (const pid_t worker : workers) ::kill(worker, SIGKILL);
    program.wait(seconds(30));
  }
  EXPECT_GE(kills_while_saving, 1U);
  const ProgramResult last = run_program(long_run("killed", {"--resume"}));
  ASSERT_EQ(last.exit_code, 0) << last.err;
  EXPECT_EQ(weights("killed", 60), weights("whole", 60));
  EXPECT_EQ(losses("killed"), losses("whole"));
  EXPECT_FALSE(saving("killed")) << "leftovers of killed saves are gone";
}

TEST_F(FailureTest, AKilledWorkerIsNamedAndTheOthersStop) {
  for (const std::size_t victim : {std::size_t{1}, std::size_t{0}}) {
    const std::string out = "run" + std::to_string(victim);
    Program program(
        train_command(out, {"train.steps=100000", "--workers", "3", "batch.micro_batches=6"}));
    await([&] { return lines(out + "/metrics.jsonl") > 2; });
    const std::vector<pid_t> workers = program.children();
    ASSERT_EQ(workers.size(), 3U);
    const Deadline deadline = Deadline::after(seconds(10));
    ::kill(workers[victim], SIGKILL);
    const ProgramResult result = program.wait(deadline.remaining());
    EXPECT_EQ(result.exit_code, 1);
    const std::string name = std::to_string(victim);
    EXPECT_NE(result.err.find("worker " + name), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("rank " + name), std::string::npos)
        << "the survivors name it too: " << result.err;
    for (const pid_t worker : workers) EXPECT_NE(::kill(worker, 0), 0) << "none is left running";
  }
}

TEST_F(FailureTest, WorkersEndWithTheirLauncher) {
  Program program(train_command("run", {"train.steps=100000", "--workers", "2"}));
  await([&] { return lines("run/metrics.jsonl") > 1; });
  const std::vector<pid_t> workers = program.children();
  ASSERT_EQ(workers.size(), 2U);
  program.send(SIGKILL);
  program.wait(seconds(10));  // both outputs end: no worker holds them any more
}

TEST_F(FailureTest, CtrlCSavesACheckpointAndEndsAllWorkers) {
  const std::string constant = "schedule.decay=constant";
  Program program(train_command(
      "run", {"train.steps=100000", constant, "checkpoint.every=0", "--workers", "2"}));
  await([&] { return lines("run/metrics.jsonl") > 2; });
  program.send(SIGINT);
  const ProgramResult result = program.wait(seconds(30));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("--resume"), std::string::npos) << "says how to go on: " << result.err;
  const std::string steps = "train.steps=" + std::to_string(losses("run").size() + 3);
  train_or_fail("run", {steps, constant, "--workers", "2", "--resume"});
  train_or_fail("whole", {steps, constant});
  EXPECT_EQ(losses("run"), losses("whole"));
}

TEST_F(FailureTest, TwoProcessesDoNotTrainInOneFolder) {
  Program program(train_command("run", {"train.steps=100000"}));
  await([&] { return lines("run/metrics.jsonl") > 1; });
  expect_refused(train("run", {"--resume", "train.steps=100000"}),
                 {"another process", path("run")});
  program.send(SIGTERM);
  EXPECT_EQ(program.wait(seconds(30)).exit_code, 0);
}

}  // namespace
}  // namespace trireme::testing

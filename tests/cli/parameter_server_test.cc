// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme train with parameter servers, as real processes: with consistency sync the run of data
// parallelism, bit for bit, whatever happens to a server.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;

class ParameterServerTest : public CliTest {
 protected:
  // Several ranges of weights for each server.
  static std::vector<std::string> served(int servers, int workers,
                                         const std::vector<std::string>& more = {}) {
    std::vector<std::string> options = {"--workers", std::to_string(workers),
                                        "parallel.ps.servers=" + std::to_string(servers),
                                        "parallel.ps.range_bytes=16384"};
    options.insert(options.end(), more.begin(), more.end());
    return options;
  }
  std::string optimizer(const std::string& out, int step) const {
    char name[32];
    std::snprintf(name, sizeof name, "step-%08d", step);
    return read_text(path(out) + "/checkpoints/" + name + "/optimizer.safetensors");
  }
  void expect_same_run(const std::string& out, const std::string& as, int step = 12) const {
    EXPECT_EQ(losses(out), losses(as)) << out;
    EXPECT_EQ(weights(out, step), weights(as, step)) << out;
    EXPECT_EQ(optimizer(out, step), optimizer(as, step)) << out;
    EXPECT_EQ(metrics(out, "validation_loss").back()["validation_loss"],
              metrics(as, "validation_loss").back()["validation_loss"])
        << out;
  }
  std::ptrdiff_t lines_of_metrics(const std::string& out) const {
    std::ifstream file(path(out) + "/metrics.jsonl");
    return std::count(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>(), '\n');
  }
};

// Of the processes whose parent that is, the one whose environment has the text.
pid_t child_with(pid_t parent, const std::string& variable) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      continue;
    }
    std::ifstream stat(entry.path() / "stat");
    std::string text((std::istreambuf_iterator<char>(stat)), std::istreambuf_iterator<char>());
    const std::size_t after = text.rfind(") ");
    if (after == std::string::npos) continue;
    if (std::atoi(text.c_str() + after + 4) != parent) continue;
    std::ifstream environment(entry.path() / "environ");
    const std::string all((std::istreambuf_iterator<char>(environment)),
                          std::istreambuf_iterator<char>());
    if (all.find(variable) != std::string::npos) return std::atoi(name.c_str());
  }
  return -1;
}

TEST_F(ParameterServerTest, SyncIsTheRunOfDataParallelism) {
  train_or_fail("alone");
  ASSERT_EQ(losses("alone").size(), 12U);
  const std::vector<std::pair<int, int>> jobs = {{1, 1}, {1, 2}, {2, 2}, {3, 4}};
  for (const auto& [servers, workers] : jobs) {
    const std::string out = "ps" + std::to_string(servers) + std::to_string(workers);
    train_or_fail(out, served(servers, workers));
    expect_same_run(out, "alone");
  }
  const auto table = summary("ps22");
  EXPECT_EQ(table["servers"], 2);
  EXPECT_EQ(table["consistency"], "sync");
  EXPECT_TRUE(table.contains("waited_for_rank_1_us"));
  EXPECT_EQ(summary("ps22")["validation_loss"], summary("alone")["validation_loss"]);
}

TEST_F(ParameterServerTest, ARunGoesOnWithServersAndWithout) {
  train_or_fail("alone", {"schedule.decay=constant"});
  train_or_fail("to", {"--workers", "2", "train.steps=8", "schedule.decay=constant"});
  train_or_fail("to", served(2, 4, {"schedule.decay=constant", "--resume"}));
  expect_same_run("to", "alone");
  train_or_fail("from", served(2, 2, {"train.steps=8", "schedule.decay=constant"}));
  train_or_fail("from", {"--workers", "2", "schedule.decay=constant", "--resume"});
  expect_same_run("from", "alone");
}

// Of steps that are passed over, too: the copies that compute are rounded by the number of updates.
TEST_F(ParameterServerTest, InBf16SyncIsTheRunOfDataParallelism) {
  const std::vector<std::string> bf16 = {"train.dtype=bf16",        "schedule.decay=constant",
                                         "train.average_decay=0.8", "guard.spike_factor=1",
                                         "guard.spike_window=1",    "guard.max_consecutive=12"};
  const auto part = [&](std::vector<std::string> more) {
    more.insert(more.end(), bf16.begin(), bf16.end());
    return more;
  };
  train_or_fail("alone", bf16);
  EXPECT_GT(summary("alone")["skipped_spikes"], 0) << "else a part of this tells nothing";
  train_or_fail("served", served(2, 2, bf16));
  train_or_fail("to", part({"--workers", "2", "train.steps=7"}));
  train_or_fail("to", served(1, 2, part({"--resume"})));
  train_or_fail("from", served(2, 4, part({"train.steps=7"})));
  train_or_fail("from", part({"--resume"}));
  for (const std::string out : {"served", "to", "from"}) expect_same_run(out, "alone");
}

// Rank 0 keeps it, as a run without servers would.
TEST_F(ParameterServerTest, TheAverageOfTheWeightsIsThatOfDataParallelism) {
  const auto average = [&](const std::string& out) {
    return read_text(path(out) + "/checkpoints/step-00000012/average.safetensors");
  };
  train_or_fail("alone", {"train.average_decay=0.8"});
  train_or_fail("served", served(2, 2, {"train.average_decay=0.8"}));
  EXPECT_NE(average("alone"), weights("alone", 12));
  EXPECT_EQ(average("served"), average("alone"));
  expect_same_run("served", "alone");
}

TEST_F(ParameterServerTest, AStepThatTheGuardPassesOverChangesNothing) {
  const std::vector<std::string> guard = {"guard.spike_factor=1", "guard.spike_window=1",
                                          "guard.max_consecutive=12"};
  train_or_fail("alone", guard);
  train_or_fail("served", served(2, 2, guard));
  expect_same_run("served", "alone");
  const auto table = summary("served");
  EXPECT_GT(table["skipped_spikes"], 0) << "else this tells nothing";
  EXPECT_EQ(table["skipped_spikes"], summary("alone")["skipped_spikes"]);
}

TEST_F(ParameterServerTest, BoundedAndAsyncTrain) {
  for (const std::string consistency : {"bounded(1)", "async"}) {
    const std::string out = consistency.substr(0, 5);
    train_or_fail(out, served(2, 2,
                              {"parallel.ps.consistency=" + consistency, "train.steps=40",
                               "batch.micro_batches=2"}));
    ASSERT_EQ(losses(out).size(), 40U) << consistency;
    EXPECT_LT(losses(out).back(), losses(out).front() - 0.5) << consistency;
    EXPECT_EQ(summary(out)["consistency"], consistency);
    EXPECT_TRUE(summary(out).contains("staleness_0")) << consistency;
  }
}

TEST_F(ParameterServerTest, CodecsTrain) {
  for (const std::string codec : {"bf16", "int8", "topk(0.3)"}) {
    train_or_fail(codec, served(1, 2, {"parallel.ps.codec=" + codec, "train.steps=40"}));
    EXPECT_LT(losses(codec).back(), losses(codec).front() - 0.5) << codec;
  }
}

TEST_F(ParameterServerTest, AServerThatIsKilledCostsNothing) {
  const std::vector<std::string> steps = {"train.steps=400", "checkpoint.every=400",
                                          "evaluation.every=0"};
  train_or_fail("whole", steps);
  std::vector<std::string> command = {kTrireme, "launch", "--servers", "2", "-n", "2", "--"};
  for (const std::string& word : train_command("killed", steps)) command.push_back(word);
  command.push_back("parallel.ps.range_bytes=16384");
  Program program(command);
  await([&] { return lines_of_metrics("killed") > 20; });
  const pid_t server = child_with(program.pid(), "TRIREME_PS_INDEX=1");
  ASSERT_GT(server, 0);
  ASSERT_EQ(::kill(server, SIGKILL), 0);
  const ProgramResult result = program.wait(std::chrono::seconds(100));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("server 1")) << "the launcher says who died";
  ASSERT_EQ(losses("killed").size(), 400U) << result.err;
  expect_same_run("killed", "whole", 400);
}

// It is dropped, and another takes its place in the step in which the job is.
TEST_F(ParameterServerTest, AWorkerThatIsKilledComesBack) {
  std::vector<std::string> command = {kTrireme, "launch",     "--servers", "1", "-n",
                                      "2",      "--restarts", "1",         "--"};
  for (const std::string& word :
       train_command("killed", {"train.steps=3000", "evaluation.every=0", "checkpoint.every=0"})) {
    command.push_back(word);
  }
  Program program(command);
  await([&] { return lines_of_metrics("killed") > 20; });
  const pid_t worker = child_with(program.pid(), "TRIREME_RANK=1");
  ASSERT_GT(worker, 0);
  ASSERT_EQ(::kill(worker, SIGKILL), 0);
  const ProgramResult result = program.wait(std::chrono::seconds(100));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(losses("killed").size(), 3000U) << result.err;
  EXPECT_THAT(result.err, HasSubstr("worker 1 has been started again"));
  EXPECT_THAT(result.err, ::testing::Not(HasSubstr("error: "))) << "the new one joins";
}

TEST_F(ParameterServerTest, RefusesWhatServersCannotDo) {
  const auto refused = [this](const std::vector<std::string>& options,
                              const std::vector<std::string>& words) {
    expect_refused(train("refused", options), words);
  };
  refused(served(1, 2, {"parallel.shard=1"}), {"parallel.shard is 1", "parallel.ps.servers 1"});
  refused(served(1, 2, {"parallel.ps.consistency=strict"}), {"strict", "bounded(4)"});
  refused(served(1, 2, {"parallel.ps.codec=zip"}), {"zip"});
  refused(served(1, 2, {"parallel.ps.range_bytes=100"}), {"parallel.ps.range_bytes", "16384"});
  refused(served(-1, 2), {"parallel.ps.servers", "-1"});
  refused(served(1, 4, {"batch.micro_batches=12"}), {"12 micro-batches", "1 or 3 or 6 or 12"});
  refused({"parallel.ps.consistency=async"}, {"parallel.ps.servers", "trireme launch --servers"});
  refused(served(1, 2, {"parallel.dp=4"}), {"parallel.dp is 4", "2 workers"});
  std::vector<std::string> launched = {kTrireme, "launch", "-n", "2", "--"};
  for (const std::string& word : train_command("refused", {"parallel.ps.servers=1"})) {
    launched.push_back(word);
  }
  EXPECT_THAT(run_program(launched).err, HasSubstr("trireme launch --servers 1"));
}

}  // namespace
}  // namespace trireme::testing

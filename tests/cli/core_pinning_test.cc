// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where the threads of real workers may run, as the kernel tells it.

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"
#include "trireme/base/process_cores.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

// "0-3,8" of /proc/<pid>/task/<thread>/status, by thread; the main thread has the process's number.
std::map<pid_t, std::string> cores_by_thread(pid_t pid) {
  std::map<pid_t, std::string> cores;
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::ifstream status(task.path() / "status");
    const std::string label = "Cpus_allowed_list:\t";
    for (std::string line; std::getline(status, line);) {
      if (!line.starts_with(label)) continue;
      cores[std::stoi(task.path().filename())] = line.substr(label.size());
    }
  }
  return cores;
}

struct CorePinningTest : CliTest {
  // The threads of both workers, some steps into a run that is then stopped.
  std::vector<std::map<pid_t, std::string>> cores_of_two_workers(std::vector<std::string> more) {
    more.insert(more.end(), {"train.steps=1000000", "--workers", "2"});
    Program program(train_command("run", more));
    await([&] { return metrics("run", "loss").size() >= 2; });
    std::vector<std::map<pid_t, std::string>> workers;
    for (const pid_t worker : program.children()) {
      workers.push_back(cores_by_thread(worker));
      main_threads_.push_back(worker);
    }
    program.send(SIGINT);
    EXPECT_EQ(program.wait(std::chrono::seconds(60)).exit_code, 0);
    return workers;
  }
  std::vector<pid_t> main_threads_;
  std::string all_cores_ = cores_by_thread(getpid()).at(getpid());
};

TEST_F(CorePinningTest, WorkersComputeOnDisjointCoresAndTalkOnAny) {
  if (process_cores().size() < 2) GTEST_SKIP() << "needs two cores";
  const auto workers = cores_of_two_workers({});
  ASSERT_EQ(workers.size(), 2U);
  const std::string first = workers[0].at(main_threads_[0]);
  const std::string second = workers[1].at(main_threads_[1]);
  EXPECT_NE(first, all_cores_);
  EXPECT_NE(second, all_cores_);
  // Contiguous halves: the first ends before the second begins.
  EXPECT_LT(std::stoi(first.substr(first.find_last_of(",-") + 1)), std::stoi(second));
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_GT(workers[i].size(), 1U) << "the control plane is a thread";
    for (const auto& [thread, cores] : workers[i]) {
      if (thread == main_threads_[i]) continue;
      EXPECT_EQ(cores, all_cores_) << "it must not starve on the main thread's core";
    }
  }
}

TEST_F(CorePinningTest, OffItLeavesThreadsToTheSystem) {
  for (const auto& worker : cores_of_two_workers({"compute.pin=false"})) {
    for (const auto& [thread, cores] : worker) EXPECT_EQ(cores, all_cores_);
  }
}

TEST_F(CorePinningTest, TooManyThreadsAreNotPinnedAndOneLineSaysSo) {
  const std::string threads = std::to_string(process_cores().size() + 1);
  const ProgramResult result =
      train("run", {"compute.threads=" + threads, "train.steps=2", "--workers", "2"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string line =
      "compute threads are not pinned to cores: 2 workers of " + threads + " threads share ";
  const std::size_t found = result.err.find(line);
  ASSERT_NE(found, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("not pinned", found + line.size()), std::string::npos) << result.err;
}

}  // namespace
}  // namespace trireme::testing

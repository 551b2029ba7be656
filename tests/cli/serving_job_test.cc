// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Jobs whose coordinator and servers are processes of trireme serve-parameters.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/cli/fixture.h"
#include "tests/support/ranks.h"

namespace trireme::testing {
namespace {

using std::chrono::seconds;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

const Program::Environment kNoSecret = {{"TRIREME_SECRET", ""}};
constexpr seconds kPatience{60};
constexpr std::chrono::milliseconds kLook{5};  // between looks at what others write

// A process that writes its log to a file, so that a test can wait for its words.
class Logged {
 public:
  Logged(const std::vector<std::string>& argv, const std::string& log,
         const Program::Environment& environment = kNoSecret)
      : log_(log), program_(in_shell(argv, log), environment) {}

  std::string log() const {
    return std::filesystem::exists(log_) ? read_text(log_) : std::string();
  }
  // Polls until the log says it so many times.
  void await(const std::string& words, int times = 1) const {
    const Deadline deadline = Deadline::after(kPatience);
    for (int found = 0; found < times; std::this_thread::sleep_for(kLook)) {
      ASSERT_FALSE(deadline.expired()) << "no '" << words << "' in:\n" << log();
      found = 0;
      const std::string text = log();
      for (std::size_t at = text.find(words); at != std::string::npos; ++found) {
        at = text.find(words, at + 1);
      }
    }
  }
  void send(int signal) const { program_.send(signal); }
  ProgramResult wait() { return program_.wait(kPatience); }

 private:
  static std::vector<std::string> in_shell(const std::vector<std::string>& argv,
                                           const std::string& log) {
    std::vector<std::string> command = {"/bin/sh", "-c", "exec \"$@\" 2>" + log, "sh"};
    command.insert(command.end(), argv.begin(), argv.end());
    return command;
  }

  std::string log_;
  Program program_;
};

class ServingJobTest : public ::testing::Test {
 protected:
  ServingJobTest() {
    const Listener listener = listen_on_free_port();
    ::close(listener.fd);
    port_ = std::to_string(listener.port);
  }

  void TearDown() override {
    if (!HasFailure()) return;
    for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
      std::fprintf(stderr, "%s:\n%s\n", file.path().filename().c_str(),
                   read_text(file.path().string()).c_str());
    }
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string gate() const { return path("gate"); }
  void open_gate() const { write_text(gate(), ""); }

  std::unique_ptr<Logged> coordinator(int servers, int workers) const {
    return std::make_unique<Logged>(
        std::vector<std::string>{kTrireme, "serve-parameters", "--role", "coordinator", "--port",
                                 port_, "--servers", std::to_string(servers), "--workers",
                                 std::to_string(workers)},
        path("coordinator"));
  }
  std::unique_ptr<Logged> server(int index) const {
    return std::make_unique<Logged>(
        std::vector<std::string>{kTrireme, "serve-parameters", "--coordinator",
                                 "127.0.0.1:" + port_, "--index", std::to_string(index)},
        path("server-" + std::to_string(index)));
  }
  // Of the only worker.
  static void expect_all_steps(Logged& only) {
    const ProgramResult result = only.wait();
    EXPECT_EQ(result.exit_code, 0) << only.log();
    EXPECT_EQ(result.out, "worker 0: as expected after 6 steps\n200 rows\n");
  }
  std::unique_ptr<Logged> worker(int rank, int servers, int workers,
                                 const std::vector<std::string>& arguments) const {
    std::vector<std::string> argv = {TRIREME_PS_WORKER};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    return std::make_unique<Logged>(
        argv, path("worker-" + std::to_string(rank)),
        Program::Environment{{"TRIREME_SECRET", ""},
                             {"TRIREME_PS_COORDINATOR", "127.0.0.1:" + port_},
                             {"TRIREME_PS_SERVERS", std::to_string(servers)},
                             {"TRIREME_PS_WORKERS", std::to_string(workers)},
                             {"RANK", std::to_string(rank)},
                             {"WORLD_SIZE", std::to_string(workers)},
                             {"LOCAL_RANK", std::to_string(rank)},
                             {"LOCAL_WORLD_SIZE", std::to_string(workers)},
                             {"MASTER_ADDR", "127.0.0.1"},
                             {"MASTER_PORT", "1"}});
  }
  void await_gate() const {
    const Deadline deadline = Deadline::after(kPatience);
    while (!std::filesystem::exists(gate() + ".reached")) {
      ASSERT_FALSE(deadline.expired()) << "no worker reached its gate";
      std::this_thread::sleep_for(kLook);
    }
  }

  TemporaryFolder folder_;
  std::string port_;
};

TEST_F(ServingJobTest, AJobByHand) {
  const auto boss = coordinator(2, 3);
  const auto first = server(0), second = server(1);
  std::vector<std::unique_ptr<Logged>> workers;
  for (int rank = 0; rank < 3; ++rank) workers.push_back(worker(rank, 2, 3, {"6"}));
  for (int rank = 0; rank < 3; ++rank) {
    const ProgramResult result = workers[static_cast<std::size_t>(rank)]->wait();
    EXPECT_EQ(result.exit_code, 0) << workers[static_cast<std::size_t>(rank)]->log();
    EXPECT_EQ(result.out, "worker " + std::to_string(rank) + ": as expected after 6 steps\n" +
                              (rank == 0 ? "400 rows\n" : ""));
  }
  EXPECT_EQ(boss->wait().exit_code, 0) << boss->log();
  EXPECT_THAT(boss->log(),
              HasSubstr("coordinator of 2 servers and 3 workers listens at 127.0.0.1:" + port_));
  EXPECT_THAT(boss->log(), HasSubstr("all workers have done their work"));
  for (const Logged* const one : {first.get(), second.get()}) {
    EXPECT_EQ(const_cast<Logged*>(one)->wait().exit_code, 0) << one->log();
    EXPECT_THAT(one->log(), HasSubstr("listens at 127.0.0.1:"));
    EXPECT_THAT(one->log(), HasSubstr("is primary of 4 ranges and backup of 4"));
    EXPECT_THAT(one->log(), ContainsRegex("24 updates of ranges, [12][0-9][0-9] rows"));
  }
}

TEST_F(ServingJobTest, UnderALauncher) {
  const ProgramResult result = run_program(
      {kTrireme, "launch", "--servers", "2", "--workers", "3", "--", TRIREME_PS_WORKER, "6"},
      kPatience);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* const line : {"worker 0: as expected after 6 steps\n", "400 rows\n",
                                 "worker 1: as expected", "worker 2: as expected"}) {
    EXPECT_THAT(result.out, HasSubstr(line));
  }
  EXPECT_THAT(result.err, Not(HasSubstr("before the workers")));
}

TEST_F(ServingJobTest, EndsOnSigtermBeforeTheJobHasBegun) {
  const auto boss = coordinator(1, 1);
  boss->await("listens at");
  const auto one = server(0);
  one->await("listens at");
  one->send(SIGTERM);
  EXPECT_EQ(one->wait().exit_code, 0) << one->log();
  boss->send(SIGTERM);
  EXPECT_EQ(boss->wait().exit_code, 0) << boss->log();
}

TEST_F(ServingJobTest, EndsOnSigtermWhileItWaitsForItsCoordinator) {
  const auto one = server(0);
  one->await("no coordinator at 127.0.0.1:" + port_ + " yet");
  one->send(SIGTERM);
  EXPECT_EQ(one->wait().exit_code, 0) << one->log();
}

// The other server has all that it held.
TEST_F(ServingJobTest, AServerThatIsToldToEndIsDoneWithout) {
  const auto boss = coordinator(2, 1);
  const auto first = server(0), second = server(1);
  const auto only = worker(0, 2, 1, {"6", "3", gate()});
  await_gate();
  first->send(SIGTERM);
  EXPECT_EQ(first->wait().exit_code, 0) << first->log();
  open_gate();
  expect_all_steps(*only);
  EXPECT_EQ(second->wait().exit_code, 0) << second->log();
  EXPECT_THAT(second->log(), HasSubstr("is primary of 8 ranges and backup of 0"));
}

// One that was stopped so long that it counts as gone joins again, and takes over when the other
// goes.
TEST_F(ServingJobTest, AServerThatWasTakenForGoneJoinsAgain) {
  const auto boss = coordinator(2, 1);
  const auto first = server(0), second = server(1);
  const auto only = worker(0, 2, 1, {"6", "3", gate()});
  await_gate();
  second->send(SIGSTOP);
  boss->await("server 1 is gone: it has said nothing");
  second->send(SIGCONT);
  second->await("joins again");
  second->await("server 1 listens at", 2);
  boss->await("2 servers, 1 workers, 8 ranges\n", 2);  // again all of them on both
  first->send(SIGTERM);
  EXPECT_EQ(first->wait().exit_code, 0) << first->log();
  open_gate();
  expect_all_steps(*only);
  EXPECT_EQ(second->wait().exit_code, 0) << second->log();
}

TEST_F(ServingJobTest, ServersEndWhenTheCoordinatorIsLost) {
  const auto boss = coordinator(1, 1);
  const auto one = server(0);
  const auto only = worker(0, 1, 1, {"6", "3", gate()});
  await_gate();
  boss->send(SIGKILL);
  EXPECT_EQ(one->wait().exit_code, 1) << one->log();
  EXPECT_THAT(one->log(), HasSubstr("trireme: error: server 0: the coordinator is lost"));
  open_gate();
  EXPECT_EQ(only->wait().exit_code, 1) << only->log();
}

}  // namespace
}  // namespace trireme::testing

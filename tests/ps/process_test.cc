// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Jobs of processes, of which some are killed or stopped in the midst of training. The others end
// with the bits of a job that nothing happened to.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/file_descriptor.h"

namespace trireme::ps {
namespace {

using ::testing::HasSubstr;
using trireme::testing::Program;
using trireme::testing::ProgramResult;
using trireme::testing::TemporaryFolder;

// Silence after which a process counts as gone, and what a test may take: stopped processes are
// found out, and training goes on within ten seconds.
constexpr int kHeartbeatMs = 2000;
constexpr std::chrono::milliseconds kTime = std::chrono::seconds(40);

// A port on which nobody listens.
int free_port() {
  const trireme::testing::Listener listener = trireme::testing::listen_on_free_port();
  ::close(listener.fd);
  return listener.port;
}

struct Process {
  explicit Process(const std::vector<std::string>& words) {
    std::vector<std::string> argv{TRIREME_PS_PROCESS};
    argv.insert(argv.end(), words.begin(), words.end());
    program = std::make_unique<Program>(argv);
  }
  std::string out() { return program->wait(kTime).out; }
  std::unique_ptr<Program> program;
};

class ProcessJob {
 public:
  ProcessJob(int servers, int workers)
      : port_(std::to_string(free_port())),
        coordinator_({"coordinator", port_, std::to_string(servers), std::to_string(workers),
                      std::to_string(kHeartbeatMs)}) {
    for (int i = 0; i < servers; ++i) start_server(i);
  }
  void start_server(int index) {
    servers_.push_back(std::make_unique<Process>(
        std::vector<std::string>{"server", "127.0.0.1", port_, std::to_string(index)}));
  }
  Process start_worker(int rank, const std::string& style, int steps,
                       const std::vector<std::string>& actions = {}) {
    std::vector<std::string> words{"worker", "127.0.0.1",          port_, std::to_string(rank),
                                   style,    std::to_string(steps)};
    words.insert(words.end(), actions.begin(), actions.end());
    return Process(words);
  }
  pid_t server_pid(std::size_t index) const { return servers_.at(index)->program->pid(); }
  Process& server(std::size_t index) { return *servers_.at(index); }
  Process& coordinator() { return coordinator_; }

 private:
  std::string port_;
  Process coordinator_;
  std::vector<std::unique_ptr<Process>> servers_;
};

std::string signal_to(int signal, pid_t pid) { return fmt::format("{}:{}", signal, pid); }

// What two workers print where nothing happens.
std::string unbroken(const std::string& style, int steps) {
  std::string out;
  Job job({.servers = 1, .workers = 2});
  job.run(layout_of_style(style), [&](Worker& worker) {
    begin(worker);
    const Values values = train(worker, script_of_style(style, steps));
    if (worker.rank() == 0) out = hash_of(values) + "\n";
  });
  return out;
}

// For who waits there; none when nobody comes.
FileDescriptor open_gate(const std::string& path) {
  const Deadline deadline = Deadline::after(kTime);
  while (!deadline.expired()) {
    FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_NONBLOCK));
    if (fd) return fd;
    ::poll(nullptr, 0, 5);
  }
  return FileDescriptor();
}

class KilledProcesses : public ::testing::TestWithParam<const char*> {};

TEST_P(KilledProcesses, AServerIsReplaced) {
  const std::string expected = unbroken(GetParam(), 20);
  ProcessJob job(3, 2);
  Process first =
      job.start_worker(0, GetParam(), 20, {"30", "signal", signal_to(SIGKILL, job.server_pid(1))});
  Process second = job.start_worker(1, GetParam(), 20);
  EXPECT_EQ(first.out(), expected);
  EXPECT_EQ(second.out(), expected);
  EXPECT_EQ(job.server(1).program->wait(kTime).signal, SIGKILL);
  EXPECT_EQ(job.server(0).out(), "finished\n");
  EXPECT_EQ(job.coordinator().program->wait(kTime).exit_code, 0);
}

// It comes back to life when the others have gone on, and then must neither answer nor write into
// memory of workers.
TEST_P(KilledProcesses, AServerThatStopsIsReplacedAndStaysAway) {
  const std::string expected = unbroken(GetParam(), 60);
  ProcessJob job(3, 2);
  const pid_t stopped = job.server_pid(0);
  Process first = job.start_worker(0, GetParam(), 60,
                                   {"31", "signal", signal_to(SIGSTOP, stopped),  //
                                    "70", "signal", signal_to(SIGCONT, stopped)});
  Process second = job.start_worker(1, GetParam(), 60);
  EXPECT_EQ(first.out(), expected);
  EXPECT_EQ(second.out(), expected);
  EXPECT_THAT(job.server(0).out(), ::testing::AnyOf("dropped\n", HasSubstr("coordinator")));
  EXPECT_EQ(job.server(1).out(), "finished\n");
}

INSTANTIATE_TEST_SUITE_P(Styles, KilledProcesses,
                         ::testing::Values("whole", "by_range", "two_phases"));

// Without the one that is gone; its successor takes part again from the step that the others are
// in, and both have the same in the end.
TEST(KilledWorkers, MayBeFollowedByAnother) {
  const TemporaryFolder folder;
  const std::string gate = folder / "first", other_gate = folder / "second";
  ASSERT_EQ(mkfifo(gate.c_str(), 0600), 0);
  ASSERT_EQ(mkfifo(other_gate.c_str(), 0600), 0);
  ProcessJob job(2, 2);
  Process killed = job.start_worker(1, "whole", 40, {"33", "signal", signal_to(SIGKILL, 0)});
  Process first = job.start_worker(0, "whole", 40, {"100", "gate", gate});
  EXPECT_EQ(killed.program->wait(kTime).signal, SIGKILL);
  Process second = job.start_worker(1, "whole", 40, {"0", "gate", other_gate});
  // Each is opened when its worker waits there: the second when it has joined.
  const FileDescriptor second_opened = open_gate(other_gate);
  const FileDescriptor first_opened = open_gate(gate);
  EXPECT_TRUE(second_opened && first_opened);
  const std::string out = first.out();
  EXPECT_THAT(out, ::testing::Not(HasSubstr("rror")));
  EXPECT_EQ(second.out(), out);
}

TEST(KilledWorkers, OneThatStopsIsToldWhenItComesBack) {
  ProcessJob job(2, 2);
  Process stopped = job.start_worker(1, "whole", 60, {"31", "signal", signal_to(SIGSTOP, 0)});
  Process first = job.start_worker(0, "whole", 60,
                                   {"150", "signal", signal_to(SIGCONT, stopped.program->pid())});
  EXPECT_THAT(first.out(), ::testing::Not(HasSubstr("rror")));
  EXPECT_THAT(stopped.out(),
              ::testing::AnyOf(HasSubstr("taken for gone"), HasSubstr("the job is over")));
}

TEST(KilledCoordinator, EndsTheJobWithItsName) {
  ProcessJob job(2, 2);
  Process second = job.start_worker(1, "whole", 10'000);
  Process first = job.start_worker(
      0, "whole", 10'000, {"33", "signal", signal_to(SIGKILL, job.coordinator().program->pid())});
  for (Process* process : {&first, &second, &job.server(0), &job.server(1)}) {
    const ProgramResult result = process->program->wait(kTime);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.out, HasSubstr("the coordinator is lost"));
  }
}

}  // namespace
}  // namespace trireme::ps

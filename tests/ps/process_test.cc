// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Jobs of processes, of which some are killed or stopped in the midst of training. The others end
// with the bits of a job that nothing happened to.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

#include "tests/ps/process_job.h"
#include "tests/support/temporary_folder.h"

namespace trireme::ps {
namespace {

using ::testing::HasSubstr;
using trireme::testing::ProgramResult;
using trireme::testing::TemporaryFolder;

class KilledProcesses : public ::testing::TestWithParam<const char*> {};

TEST_P(KilledProcesses, AServerIsReplaced) {
  const std::string expected = unbroken(GetParam(), 20);
  ProcessJob job(3, 2, kShortHeartbeat);
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
  ProcessJob job(3, 2, kShortHeartbeat);
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
  const Gate gate(folder / "first"), other_gate(folder / "second");
  ProcessJob job(2, 2, kShortHeartbeat);
  Process killed = job.start_worker(1, "whole", 40, {"33", "signal", signal_to(SIGKILL, 0)});
  Process first = job.start_worker(0, "whole", 40, gate.before(100));
  EXPECT_EQ(killed.program->wait(kTime).signal, SIGKILL);
  FileDescriptor first_held = gate.hold();  // it came there without the one that is gone
  ASSERT_TRUE(first_held);
  Process second = job.start_worker(1, "whole", 40, other_gate.before(0));
  {
    // The second waits there when it has joined.
    const FileDescriptor second_held = other_gate.hold();
    EXPECT_TRUE(second_held);
    first_held = FileDescriptor();
  }
  const std::string out = first.out();
  EXPECT_THAT(out, ::testing::Not(HasSubstr("rror")));
  EXPECT_EQ(second.out(), out);
}

TEST(KilledWorkers, OneThatStopsIsToldWhenItComesBack) {
  ProcessJob job(2, 2, kShortHeartbeat);
  Process stopped = job.start_worker(1, "whole", 60, {"31", "signal", signal_to(SIGSTOP, 0)});
  Process first = job.start_worker(0, "whole", 60,
                                   {"150", "signal", signal_to(SIGCONT, stopped.program->pid())});
  EXPECT_THAT(first.out(), ::testing::Not(HasSubstr("rror")));
  EXPECT_THAT(stopped.out(),
              ::testing::AnyOf(HasSubstr("taken for gone"), HasSubstr("the job is over")));
}

// The time from the loss of a server until a step is done that began after it, with the heartbeat
// that jobs have. Ten seconds are promised.
class LossOfAServer : public ::testing::TestWithParam<int> {};

TEST_P(LossOfAServer, IsOverWithinTenSeconds) {
  constexpr int kStepEvents = 4;  // of a step of style whole
  const TemporaryFolder folder;
  const Gate before(folder / "before"), after(folder / "after");
  ProcessJob job(2, 2, kHeartbeat);
  std::vector<std::string> gates = before.before(5 * kStepEvents);
  for (const std::string& word : after.before(7 * kStepEvents)) gates.push_back(word);
  Process first = job.start_worker(0, "whole", 20, gates);
  Process second = job.start_worker(1, "whole", 20);
  {
    const FileDescriptor held = before.hold();
    ASSERT_TRUE(held);
    job.server(1).program->send(GetParam());
  }
  const auto lost = std::chrono::steady_clock::now();
  {
    const FileDescriptor held = after.hold();
    ASSERT_TRUE(held);
    EXPECT_LT(std::chrono::steady_clock::now() - lost, std::chrono::seconds(10));
  }
  EXPECT_EQ(first.out(), unbroken("whole", 20));
  EXPECT_EQ(second.out(), unbroken("whole", 20));
}

INSTANTIATE_TEST_SUITE_P(Signals, LossOfAServer, ::testing::Values(SIGKILL, SIGSTOP));

TEST(KilledCoordinator, EndsTheJobWithItsName) {
  ProcessJob job(2, 2, kShortHeartbeat);
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

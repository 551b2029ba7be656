// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/local_workers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "tests/launch/launcher_process.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::LauncherProcess;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::UnorderedElementsAre;
using testing::wait_for_end;

// Long enough that a test which waits for it fails by its own patience first.
constexpr auto kForever = std::chrono::minutes(30);

LocalWorkersOptions graces(std::chrono::milliseconds grace,
                           std::chrono::milliseconds interrupt_grace = kForever,
                           std::chrono::milliseconds terminate_grace = kForever) {
  LocalWorkersOptions options;
  options.grace = grace;
  options.interrupt_grace = interrupt_grace;
  options.terminate_grace = terminate_grace;
  return options;
}

std::vector<std::string> words(const std::string& line) {
  std::istringstream in(line);
  return {std::istream_iterator<std::string>(in), {}};
}

std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A socket on loopback: listening at the port, or connected to it; -1 with errno set.
int loopback_socket(int port, bool listening) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto* where = reinterpret_cast<const sockaddr*>(&address);
  const bool done = listening ? bind(fd, where, sizeof address) == 0 && listen(fd, 1) == 0
                              : connect(fd, where, sizeof address) == 0;
  if (done) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

TEST(LocalWorkers, EachKnowsWhoItIs) {
  const std::string script =
      "echo $TRIREME_RANK $TRIREME_WORLD_SIZE $TRIREME_LOCAL_RANK $TRIREME_LOCAL_SIZE "
      "$TRIREME_ADDRESS ${TRIREME_LISTEN_FD-none} $TRIREME_LAUNCHER_PID $PPID "
      "$TRIREME_PORT $TRIREME_SECRET >&9";
  std::set<std::string> secrets;
  for (int job = 0; job < 2; ++job) {
    LauncherProcess launcher(3, script, {}, [] {  // an outer launcher's words must not reach them
      setenv("TRIREME_LISTEN_FD", "5", 1);
      setenv("TRIREME_RANK", "4", 1);
    });
    const std::string pid = std::to_string(launcher.pid());
    std::vector<std::string> lines = launcher.lines(3);
    ASSERT_EQ(lines.size(), 3U);
    std::ranges::sort(lines);
    EXPECT_EQ(launcher.wait(), 0) << launcher.log();
    EXPECT_EQ(launcher.rest(), "");
    std::set<std::string> meeting;  // port and secret
    for (int rank = 0; rank < 3; ++rank) {
      std::vector<std::string> w = words(lines[static_cast<std::size_t>(rank)]);
      ASSERT_EQ(w.size(), 10U) << lines[static_cast<std::size_t>(rank)];
      meeting.insert(w[8] + " " + w[9]);
      secrets.insert(w[9]);
      EXPECT_THAT(w[9], MatchesRegex("[0-9a-f]{64}"));
      EXPECT_THAT(w[5], MatchesRegex(rank == 0 ? "[0-9]+" : "none"));
      const std::string r = std::to_string(rank);
      w[5] = "fd";
      w.resize(8);
      EXPECT_THAT(w, ElementsAre(r, "3", r, "3", "127.0.0.1", "fd", pid, pid));
    }
    EXPECT_EQ(meeting.size(), 1U);
  }
  EXPECT_EQ(secrets.size(), 2U);
}

// ls itself holds the folder that it lists, under the first number that is free.
TEST(LocalWorkers, HaveNoInputAndNoStrayDescriptors) {
  LauncherProcess launcher(3,
                           "echo ${TRIREME_LISTEN_FD-none} >&9;"
                           "readlink /proc/$$/fd/0 > $FOLDER/input.$TRIREME_RANK;"
                           "exec ls -v -m /proc/self/fd > $FOLDER/fds.$TRIREME_RANK");
  EXPECT_THAT(launcher.lines(3), UnorderedElementsAre("3", "none", "none"));
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(content(launcher.folder() + "/fds.0"), "0, 1, 2, 3, 4, 8, 9\n");
  EXPECT_EQ(content(launcher.folder() + "/fds.1"), "0, 1, 2, 3, 8, 9\n");
  EXPECT_EQ(content(launcher.folder() + "/fds.2"), "0, 1, 2, 3, 8, 9\n");
  for (const char* rank : {"0", "1", "2"}) {
    EXPECT_EQ(content(launcher.folder() + "/input." + rank), "/dev/null\n");
  }
}

TEST(LocalWorkers, SecretIsNotOnTheCommandLine) {
  LauncherProcess launcher(2,
                           "tr '\\0' ' ' < /proc/$$/cmdline > $FOLDER/worker.$TRIREME_RANK;"
                           "echo $TRIREME_SECRET >&9; read x <&8; exit 0");
  const std::vector<std::string> secret = launcher.lines(2);
  ASSERT_EQ(secret.size(), 2U);
  const std::string own = content("/proc/" + std::to_string(launcher.pid()) + "/cmdline");
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0);
  for (const std::string& text : {own, content(launcher.folder() + "/worker.0"),
                                  content(launcher.folder() + "/worker.1"), launcher.log()}) {
    EXPECT_THAT(text, Not(HasSubstr(secret[0])));
  }
  EXPECT_THAT(content(launcher.folder() + "/worker.1"), HasSubstr("cmdline"));
}

TEST(LocalWorkers, InheritedSocketListensUntilRankZeroEnds) {
  LauncherProcess launcher(2,
                           "echo $TRIREME_RANK $$ $TRIREME_PORT >&9;"
                           "if [ $TRIREME_RANK = 0 ]; then read x <&8; exit 0; fi;"
                           "exec sleep 1000",
                           graces(0ms, kForever, 0ms));
  std::vector<std::string> lines = launcher.lines(2);
  ASSERT_EQ(lines.size(), 2U);
  std::ranges::sort(lines);
  const int port = std::stoi(words(lines[0])[2]);
  const int connection = loopback_socket(port, false);
  EXPECT_GE(connection, 0) << strerror(errno);
  close(connection);

  launcher.release();
  ASSERT_TRUE(wait_for_end(std::stoi(words(lines[0])[1])));
  EXPECT_EQ(loopback_socket(port, false), -1);
  EXPECT_EQ(errno, ECONNREFUSED);

  kill(std::stoi(words(lines[1])[1]), SIGKILL);
  EXPECT_EQ(launcher.wait(), 1);
}

TEST(LocalWorkers, GivenPort) {
  const int taken = loopback_socket(0, true);
  const int port = port_of(taken);
  LocalWorkersOptions options;
  options.port = port;
  {
    LauncherProcess launcher(2, "echo started >&9", options);
    EXPECT_EQ(launcher.wait(), LauncherProcess::kThrew);
    EXPECT_THAT(launcher.log(),
                HasSubstr("port " + std::to_string(port) + " of 127.0.0.1 is in use"));
    EXPECT_EQ(launcher.rest(), "");
  }
  close(taken);
  LauncherProcess launcher(2, "echo $TRIREME_PORT >&9", options);
  const std::string text = std::to_string(port);
  EXPECT_THAT(launcher.lines(2), ElementsAre(text, text));
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
}

TEST(LocalWorkers, RefusesBadOptions) {
  LocalWorkersOptions options;
  EXPECT_THROW(run_local_workers(options), ConfigError);
  options.command = {"/bin/true"};
  options.workers = 0;
  EXPECT_THROW(run_local_workers(options), ConfigError);
  options.workers = 1;
  options.port = 65536;
  EXPECT_THROW(run_local_workers(options), ConfigError);
  options.port = 0;
  options.prefix = true;
  options.log_folder = "/tmp";
  EXPECT_THROW(run_local_workers(options), ConfigError);
}

TEST(LocalWorkers, RefusesWhatCannotBeExecuted) {
  LocalWorkersOptions options;
  options.workers = 3;
  for (const char* command : {"/no/such/program", "sh", "/etc/passwd"}) {
    options.command = {command, "--help"};
    try {
      run_local_workers(options);
      ADD_FAILURE() << command << " was executed";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(std::string("cannot execute ") + command));
    }
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
    EXPECT_EQ(errno, ECHILD);
  }
}

// However it was called: here by a name that no path leads to.
TEST(LocalWorkers, StartsThisProgramAgain) {
  static char name[] = "found-on-the-search-path";
  LocalWorkersOptions options;
  options.command = {name, "--gtest_list_tests", "--gtest_filter=LocalWorkers.StartsThis*"};
  LauncherProcess launcher(2, "", options, [] { program_invocation_name = name; });
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_THAT(launcher.log(), HasSubstr("StartsThisProgramAgain"));
}

TEST(LocalWorkers, LeavesTheCallerAsItWas) {
  LocalWorkersOptions options;
  options.workers = 2;
  options.command = {"/bin/true"};
  sigset_t before;
  sigset_t after;
  sigset_t original;
  sigemptyset(&before);
  sigaddset(&before, SIGUSR1);
  sigaddset(&before, SIGTERM);
  pthread_sigmask(SIG_SETMASK, &before, &original);
  EXPECT_EQ(run_local_workers(options), 0);
  pthread_sigmask(SIG_SETMASK, &original, &after);
  for (int signal = 1; signal < SIGRTMIN; ++signal) {
    EXPECT_EQ(sigismember(&before, signal), sigismember(&after, signal)) << signal;
  }
}

TEST(LocalWorkers, WorksWhereTheCallerIgnoresItsChildren) {
  LauncherProcess launcher(2, "[ $TRIREME_RANK = 0 ] || exit 2", {},
                           [] { signal(SIGCHLD, SIG_IGN); });
  EXPECT_EQ(launcher.wait(), 2) << launcher.log();
}

TEST(LocalWorkers, OneMayEndEarly) {
  LauncherProcess launcher(2,
                           "echo $TRIREME_RANK $$ >&9; [ $TRIREME_RANK = 0 ] && exit 0;"
                           "read x <&8; echo worked on >&9",
                           graces(0ms, kForever, 0ms));
  std::vector<std::string> lines = launcher.lines(2);
  ASSERT_EQ(lines.size(), 2U);
  std::ranges::sort(lines);
  ASSERT_TRUE(wait_for_end(std::stoi(words(lines[0])[1])));
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(launcher.rest(), "worked on\n");
}

TEST(LocalWorkers, FailureEndsTheOthers) {
  const struct {
    const char* failure;
    int result;
    const char* log;
  } cases[] = {
      {"exit 3", 1, "worker 1 \\(pid [0-9]+\\) ended with status 3"},
      {"exit 2", 2, "worker 1 \\(pid [0-9]+\\) ended with status 2"},
      {"kill -9 $$", 1, "worker 1 \\(pid [0-9]+\\) was killed by signal 9 \\(Killed\\)"},
      {"kill -SEGV $$", 1, "worker 1 \\(pid [0-9]+\\) was killed by signal 11"},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.failure);
    LauncherProcess launcher(
        3,
        "trap 'echo $TRIREME_RANK terminated >&9; exit 1' TERM; echo ready >&9;"
        "[ $TRIREME_RANK = 1 ] && { read x <&8; " +
            std::string(test.failure) + "; }; sleep 1000 & wait",
        graces(1ms));
    EXPECT_THAT(launcher.lines(3), ElementsAre("ready", "ready", "ready"));
    launcher.release();
    EXPECT_THAT(launcher.lines(2), UnorderedElementsAre("0 terminated", "2 terminated"));
    EXPECT_EQ(launcher.wait(), test.result);
    EXPECT_THAT(launcher.log(), ContainsRegex(test.log));
    EXPECT_EQ(launcher.rest(), "");
  }
}

TEST(LocalWorkers, WhoIgnoresSigtermIsKilled) {
  LauncherProcess launcher(2,
                           "trap '' TERM INT; echo ready >&9;"
                           "[ $TRIREME_RANK = 1 ] && { read x <&8; exit 1; }; exec sleep 1000",
                           graces(1ms, kForever, 1ms));
  EXPECT_THAT(launcher.lines(2), ElementsAre("ready", "ready"));
  launcher.release();
  EXPECT_EQ(launcher.wait(), 1);
  EXPECT_THAT(launcher.log(), ContainsRegex("worker 0 \\(pid [0-9]+\\) was killed by signal 9"));
  EXPECT_EQ(launcher.rest(), "");
}

TEST(LocalWorkers, SurvivorsHaveTheirGrace) {
  LauncherProcess launcher(2,
                           "trap 'echo terminated >&9' TERM; echo $TRIREME_RANK $$ >&9;"
                           "[ $TRIREME_RANK = 1 ] && exit 4;"
                           "read x <&8; echo peer 1 is lost >&9; exit 1",
                           graces(kForever));
  std::vector<std::string> lines = launcher.lines(2);
  ASSERT_EQ(lines.size(), 2U);
  std::ranges::sort(lines);
  ASSERT_TRUE(wait_for_end(std::stoi(words(lines[1])[1])));
  launcher.release();
  EXPECT_EQ(launcher.wait(), 1);
  EXPECT_EQ(launcher.rest(), "peer 1 is lost\n");
}

TEST(LocalWorkers, FirstFailureGivesTheStatus) {
  for (const auto& [first, second] : {std::pair(2, 1), std::pair(5, 2)}) {
    SCOPED_TRACE(first);
    const std::string script = "echo $TRIREME_RANK $$ >&9; [ $TRIREME_RANK = 1 ] && exit " +
                               std::to_string(first) + "; read x <&8; exit " +
                               std::to_string(second);
    LauncherProcess launcher(2, script, graces(kForever));
    std::vector<std::string> lines = launcher.lines(2);
    ASSERT_EQ(lines.size(), 2U);
    std::ranges::sort(lines);
    const std::string pid = words(lines[1])[1];
    // Reaped, not only ended: the launcher has noted the failure.
    EXPECT_TRUE(testing::wait_until([&] { return access(("/proc/" + pid).c_str(), F_OK) != 0; }));
    launcher.release();
    EXPECT_EQ(launcher.wait(), first == 2 ? 2 : 1);
  }
}

// Both have ended when the launcher looks: rank 0 only lost the peer that found the mistake.
TEST(LocalWorkers, OfFailuresSeenTogetherTheCauseGivesTheStatus) {
  LauncherProcess launcher(2, "echo $$ >&9; read x <&8; [ $TRIREME_RANK = 0 ] && exit 1; exit 2",
                           graces(kForever));
  const std::vector<std::string> pids = launcher.lines(2);
  launcher.send(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(launcher.pid(), &status, WUNTRACED), launcher.pid());
  launcher.release();
  for (const std::string& pid : pids) ASSERT_TRUE(wait_for_end(std::stoi(pid)));
  launcher.send(SIGCONT);
  EXPECT_EQ(launcher.wait(), 2) << launcher.log();
}

TEST(LocalWorkers, WhatAWorkerLeavesBehindEndsWithIt) {
  LauncherProcess launcher(2, "sleep 1000 & exit 0");
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(launcher.rest(), "");
}

TEST(LocalWorkers, InterruptIsPassedOnOnce) {
  const struct {
    int sent;
    const char* arrives;
  } cases[] = {{SIGINT, "INT"}, {SIGTERM, "TERM"}, {SIGHUP, "TERM"}};
  for (const auto& test : cases) {
    SCOPED_TRACE(test.sent);
    // The handler ends the script only after the test has let it: it is saving.
    LauncherProcess launcher(3,
                             "trap 'echo INT >&9; read x <&8; exit 0' INT;"
                             "trap 'echo TERM >&9; read x <&8; exit 0' TERM;"
                             "echo ready >&9; sleep 1000 & wait",
                             graces(1ms));
    EXPECT_THAT(launcher.lines(3), ElementsAre("ready", "ready", "ready"));
    launcher.send(test.sent);
    EXPECT_THAT(launcher.lines(3), ElementsAre(test.arrives, test.arrives, test.arrives));
    launcher.send(SIGTERM);  // asked already
    launcher.release();
    EXPECT_EQ(launcher.wait(), 0) << launcher.log();
    EXPECT_EQ(launcher.rest(), "");
  }
}

// The launcher sleeps while the request and the end of its last worker come together.
TEST(LocalWorkers, LateRequestDoesNotStrikeTheCaller) {
  LauncherProcess launcher(1, "trap '' TERM INT; echo $$ >&9; read x <&8; exit 0");
  const std::vector<std::string> pids = launcher.lines(1);
  ASSERT_EQ(pids.size(), 1U);
  launcher.send(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(launcher.pid(), &status, WUNTRACED), launcher.pid());
  launcher.release();
  ASSERT_TRUE(wait_for_end(std::stoi(pids[0])));
  launcher.send(SIGTERM);
  launcher.send(SIGINT);
  launcher.send(SIGCONT);
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
}

TEST(LocalWorkers, SecondInterruptKills) {
  LauncherProcess launcher(3,
                           "trap 'echo INT >&9' INT; echo ready >&9;"
                           "while :; do sleep 1000 & wait; done",
                           graces(kForever, kForever));
  EXPECT_THAT(launcher.lines(3), ElementsAre("ready", "ready", "ready"));
  launcher.send(SIGINT);
  EXPECT_THAT(launcher.lines(3), ElementsAre("INT", "INT", "INT"));
  launcher.send(SIGINT);
  EXPECT_EQ(launcher.wait(), 1);
  EXPECT_EQ(launcher.rest(), "");
}

TEST(LocalWorkers, InterruptedWorkersHaveALimit) {
  LauncherProcess launcher(2, "trap '' INT TERM; echo ready >&9; exec sleep 1000",
                           graces(kForever, 1ms, 1ms));
  EXPECT_THAT(launcher.lines(2), ElementsAre("ready", "ready"));
  launcher.send(SIGINT);
  EXPECT_EQ(launcher.wait(), 1);
  EXPECT_EQ(launcher.rest(), "");
}

// The terminal's Ctrl-C goes to the foreground process group: the launcher's alone.
TEST(LocalWorkers, EachIsAProcessGroup) {
  LauncherProcess launcher(2, "echo $$ $(cut -d' ' -f5 /proc/$$/stat) >&9");
  for (const std::string& line : launcher.lines(2)) {
    const std::vector<std::string> pids = words(line);
    ASSERT_EQ(pids.size(), 2U);
    EXPECT_EQ(pids[0], pids[1]);
  }
  EXPECT_EQ(launcher.wait(), 0);
}

TEST(LocalWorkers, StopAndContinueTogether) {
  LauncherProcess launcher(2, "echo $$ >&9; read x <&8; exit 0");
  const std::vector<std::string> pids = launcher.lines(2);
  launcher.send(SIGTSTP);
  int status = 0;
  ASSERT_EQ(waitpid(launcher.pid(), &status, WUNTRACED), launcher.pid());
  EXPECT_TRUE(WIFSTOPPED(status));
  for (const std::string& pid : pids) {
    const auto stopped = [&] { return words(content("/proc/" + pid + "/stat"))[2] == "T"; };
    EXPECT_TRUE(testing::wait_until(stopped));
  }
  launcher.send(SIGCONT);
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(launcher.rest(), "");
}

TEST(LocalWorkers, DieWithTheirLauncher) {
  LauncherProcess launcher(3, "trap '' TERM INT HUP; echo ready >&9; exec sleep 1000");
  EXPECT_THAT(launcher.lines(3), ElementsAre("ready", "ready", "ready"));
  launcher.send(SIGKILL);
  EXPECT_EQ(launcher.wait(), -SIGKILL);
  EXPECT_EQ(launcher.rest(), "");
}

// Runs body in a forked child; the signal that ended it, or minus its status.
int signal_of(const std::function<void()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

TEST(FollowLauncher, NothingWithoutALauncher) {
  EXPECT_EQ(signal_of([] {
              unsetenv("TRIREME_LAUNCHER_PID");
              follow_launcher();
            }),
            0);
}

TEST(FollowLauncher, RefusesWhatIsNoProcess) {
  for (const char* value : {"", "x", "12x", "-4", "0"}) {
    ASSERT_EQ(setenv("TRIREME_LAUNCHER_PID", value, 1), 0);
    EXPECT_THROW(follow_launcher(), ConfigError) << value;
  }
  unsetenv("TRIREME_LAUNCHER_PID");
}

TEST(FollowLauncher, EndsWhenTheLauncherIsGoneAlready) {
  const pid_t gone = fork();
  if (gone == 0) _exit(0);
  ASSERT_EQ(waitpid(gone, nullptr, 0), gone);
  EXPECT_EQ(signal_of([&] {
              setenv("TRIREME_LAUNCHER_PID", std::to_string(gone).c_str(), 1);
              follow_launcher();
            }),
            SIGKILL);
}

TEST(FollowLauncher, EndsWhenTheLauncherDies) {
  int alive[2];
  ASSERT_EQ(pipe2(alive, O_CLOEXEC), 0);
  const pid_t launcher = fork();
  if (launcher == 0) {
    setenv("TRIREME_LAUNCHER_PID", std::to_string(getpid()).c_str(), 1);
    if (fork() == 0) {
      follow_launcher();
      [[maybe_unused]] const ssize_t said = write(alive[1], "r", 1);
    }
    for (;;) pause();
  }
  close(alive[1]);
  char byte = 0;
  ASSERT_EQ(read(alive[0], &byte, 1), 1);
  kill(launcher, SIGKILL);
  ASSERT_EQ(waitpid(launcher, nullptr, 0), launcher);
  pollfd ended{alive[0], POLLIN, 0};
  ASSERT_EQ(poll(&ended, 1, 30000), 1) << "the worker outlived its launcher";
  EXPECT_EQ(read(alive[0], &byte, 1), 0);
  close(alive[0]);
}

}  // namespace
}  // namespace trireme

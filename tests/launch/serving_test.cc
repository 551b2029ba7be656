// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Jobs with parameter servers under run_local_workers(): who is started as what, who may die, who
// is started again, and who ends when. Servers and coordinator are shell scripts here.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "tests/launch/launcher_process.h"
#include "tests/support/files.h"
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
using testing::read_text;
using ::testing::UnorderedElementsAre;
using testing::wait_for_end;
using testing::wait_until;

// Long enough that a test which waits for it fails by its own patience first.
constexpr auto kForever = std::chrono::minutes(30);

// Serves until it is told to end, and says so.
const std::string kServe =
    "trap 'echo $TRIREME_ROLE $TRIREME_PS_INDEX told to end >&9; exit 0' TERM;"
    "echo $TRIREME_ROLE $TRIREME_PS_INDEX pid $$ >&9; sleep 1000 & wait";
// Waits for the test.
const std::string kGate = "read x <&8 || :;";
// Of a worker: says who it is, then waits.
const std::string kWork = "echo worker $TRIREME_RANK pid $$ >&9;" + kGate;

std::vector<std::string> shell(const std::string& script) { return {"/bin/sh", "-c", script}; }

LocalWorkersOptions serving(int servers, int restarts = 0, const std::string& server = kServe,
                            const std::string& coordinator = kServe) {
  LocalWorkersOptions options;
  options.parameter_servers = ServingOptions{.servers = servers,
                                             .server_command = shell(server),
                                             .coordinator_command = shell(coordinator),
                                             .restarts = restarts};
  options.grace = options.interrupt_grace = options.terminate_grace = kForever;
  return options;
}

std::vector<std::string> words(const std::string& line) {
  std::istringstream in(line);
  return {std::istream_iterator<std::string>(in), {}};
}

std::vector<std::string> sorted_lines(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::ranges::sort(lines);
  return lines;
}

// From n lines "<name> pid <pid>", names being "worker 0", "server 1", "coordinator".
std::map<std::string, pid_t> pids(LauncherProcess& launcher, std::size_t n) {
  std::map<std::string, pid_t> result;
  for (const std::string& line : launcher.lines(n)) {
    const std::vector<std::string> w = words(line);
    if (w.size() < 3 || w[w.size() - 2] != "pid") {
      ADD_FAILURE() << "not a pid: " << line;
      continue;
    }
    result[w.size() == 4 ? w[0] + " " + w[1] : w[0]] = std::stoi(w.back());
  }
  EXPECT_EQ(result.size(), n);
  return result;
}

bool wait_for_reaping(pid_t pid) {
  return wait_until([&] { return access(("/proc/" + std::to_string(pid)).c_str(), F_OK) != 0; });
}

const auto kServersEnd = {"coordinator told to end", "server 0 told to end",
                          "server 1 told to end"};

TEST(Serving, EachKnowsWhoItIs) {
  const std::string say =
      "echo $TRIREME_ROLE ${TRIREME_PS_INDEX-none} ${TRIREME_RANK-none} ${RANK-none} "
      "$TRIREME_PS_SERVERS $TRIREME_PS_WORKERS ${TRIREME_RESTART-none} ${TRIREME_LISTEN_FD+listens}"
      " on $TRIREME_PS_COORDINATOR $TRIREME_SECRET $TRIREME_LAUNCHER_PID $PPID >&9;";
  const std::string server = say + "sleep 1000 & wait";
  LauncherProcess launcher(3, say + kGate, serving(2, 1, server, server), [] {
    for (const char* name : {"TRIREME_ROLE", "TRIREME_PS_INDEX", "TRIREME_RESTART"}) {
      setenv(name, "outer", 1);  // must not reach them
    }
  });
  std::vector<std::string> who;
  std::set<std::string> common;
  for (const std::string& line : launcher.lines(6)) {
    const std::size_t on = line.find(" on ");
    who.push_back(line.substr(0, on));
    common.insert(line.substr(on));
  }
  EXPECT_THAT(who, UnorderedElementsAre(
                       "coordinator none none none 2 3 none listens", "server 0 none none 2 3 none",
                       "server 1 none none 2 3 none", "worker none 0 0 2 3 none listens",
                       "worker none 1 1 2 3 none", "worker none 2 2 2 3 none"));
  const std::string pid = std::to_string(launcher.pid());
  EXPECT_THAT(common,
              ElementsAre(MatchesRegex(" on 127.0.0.1:[0-9]+ [0-9a-f]{64} " + pid + " " + pid)));
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(launcher.rest(), "");
}

// Does something listen at the port of an address "127.0.0.1:port"?
bool listens(const std::string& address) {
  const int port = std::stoi(address.substr(address.find(':') + 1));
  char local[16];
  std::snprintf(local, sizeof local, ":%04X ", static_cast<unsigned>(port));
  constexpr const char* kListening = " 00000000:0000 0A ";
  return read_text("/proc/net/tcp").find(local + std::string(kListening).substr(1)) !=
         std::string::npos;
}

// The launcher keeps no copy: nobody waits for a coordinator that is dead.
TEST(Serving, TheCoordinatorsSocketListensUntilItEnds) {
  LauncherProcess launcher(1, "echo at $TRIREME_PS_COORDINATOR >&9;" + kWork,
                           serving(2, 0, "exec sleep 1000", "echo at $$ >&9; exec sleep 1000"));
  std::vector<std::string> lines = launcher.lines(3);
  ASSERT_EQ(lines.size(), 3U);
  std::ranges::sort(lines);  // the address, the coordinator's pid, the worker's
  if (!lines[0].starts_with("at 127")) std::swap(lines[0], lines[1]);
  const std::string address = words(lines[0])[1];
  EXPECT_TRUE(listens(address)) << address;
  const pid_t coordinator = std::stoi(words(lines[1])[1]);
  kill(coordinator, SIGKILL);
  ASSERT_TRUE(wait_for_reaping(coordinator));
  EXPECT_FALSE(listens(address)) << address;
  launcher.release();
  EXPECT_EQ(launcher.wait(), 1);
}

TEST(Serving, ServersAndCoordinatorEndAfterTheLastWorker) {
  LauncherProcess launcher(2, kWork + "[ $TRIREME_RANK = 1 ] && exit 0; echo worker 0 ends >&9",
                           serving(2));
  const auto pid = pids(launcher, 5);
  kill(pid.at("worker 1"), SIGKILL);
  ASSERT_TRUE(wait_for_reaping(pid.at("worker 1")));
  launcher.release();
  EXPECT_THAT(launcher.lines(1), ElementsAre("worker 0 ends"));
  EXPECT_THAT(sorted_lines(launcher.rest()), ::testing::ElementsAreArray(kServersEnd));
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_THAT(launcher.log(), ContainsRegex("worker 1 \\(pid [0-9]+\\) was killed by signal 9"));
  EXPECT_THAT(launcher.log(), HasSubstr("the job was finished without worker 1"));
}

TEST(Serving, AServerMayDie) {
  LauncherProcess launcher(2, kWork + "echo worker $TRIREME_RANK worked on >&9", serving(2));
  const auto pid = pids(launcher, 5);
  kill(pid.at("server 0"), SIGKILL);
  ASSERT_TRUE(wait_for_reaping(pid.at("server 0")));
  launcher.release();
  EXPECT_THAT(launcher.lines(2), UnorderedElementsAre("worker 0 worked on", "worker 1 worked on"));
  EXPECT_THAT(sorted_lines(launcher.rest()),
              ElementsAre("coordinator told to end", "server 1 told to end"));
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_THAT(launcher.log(), ContainsRegex("server 0 \\(pid [0-9]+\\) was killed by signal 9"));
}

TEST(Serving, WhoDiesIsStartedAgainAsOftenAsAllowed) {
  const std::string restart = "${TRIREME_RESTART-0}";
  LauncherProcess launcher(
      2, "echo worker $TRIREME_RANK." + restart + " pid $$ >&9;" + kGate,
      serving(2, 2, "echo server $TRIREME_PS_INDEX." + restart + " pid $$ >&9; exec sleep 1000"));
  auto pid = pids(launcher, 5);
  const auto next = [&](const std::string& name, const std::string& successor) {
    kill(pid.at(name), SIGKILL);
    pid.merge(pids(launcher, 1));
    EXPECT_TRUE(pid.contains(successor)) << launcher.log();
  };
  next("worker 0.0", "worker 0.1");
  next("server 1.0", "server 1.1");
  next("worker 0.1", "worker 0.2");
  next("worker 1.0", "worker 1.1");
  next("server 1.1", "server 1.2");
  for (const char* name : {"worker 0.2", "server 1.2"}) {
    kill(pid.at(name), SIGKILL);
    ASSERT_TRUE(wait_for_reaping(pid.at(name)));
  }
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(launcher.rest(), "coordinator told to end\n");
  EXPECT_THAT(launcher.log(), HasSubstr("worker 0 has been started again, 2 of at most 2 times"));
  EXPECT_THAT(launcher.log(), HasSubstr("the job was finished without worker 0"));
  EXPECT_THAT(launcher.log(), Not(HasSubstr("without worker 0, worker 1")));
}

// Rank 0 again has a socket that listens at the port that the others know.
TEST(Serving, RankZeroListensAgain) {
  LauncherProcess launcher(
      2, "echo $TRIREME_RANK at:$TRIREME_PORT ${TRIREME_LISTEN_FD+socket} $$ >&9;" + kGate,
      serving(1, 1, "exec sleep 1000", "exec sleep 1000"));
  std::vector<std::string> lines = launcher.lines(2);
  ASSERT_EQ(lines.size(), 2U);
  std::ranges::sort(lines);
  const std::vector<std::string> before = words(lines[0]);
  ASSERT_THAT(before, ElementsAre("0", before[1], "socket", before.back()));
  EXPECT_TRUE(listens(before[1]));
  kill(std::stoi(before.back()), SIGKILL);
  lines = launcher.lines(1);
  ASSERT_EQ(lines.size(), 1U);
  const std::vector<std::string> after = words(lines[0]);
  EXPECT_THAT(after, ElementsAre("0", before[1], "socket", after.back()));
  EXPECT_TRUE(listens(before[1]));
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
}

TEST(Serving, WithoutAWorkerLeftTheFirstFailureCounts) {
  LauncherProcess launcher(2, kWork + "exit 7", serving(2));
  const auto pid = pids(launcher, 5);
  kill(pid.at("worker 0"), SIGKILL);
  ASSERT_TRUE(wait_for_reaping(pid.at("worker 0")));
  launcher.release();
  EXPECT_THAT(sorted_lines(launcher.rest()), ::testing::ElementsAreArray(kServersEnd));
  EXPECT_EQ(launcher.wait(), 1);
  EXPECT_THAT(launcher.log(), ContainsRegex("worker 1 \\(pid [0-9]+\\) ended with status 7"));
  EXPECT_THAT(launcher.log(), Not(HasSubstr("finished without")));
}

TEST(Serving, AWorkerThatEndsWellIsNotStartedAgain) {
  LauncherProcess launcher(2, kWork, serving(1, 5, "exec sleep 1000"));
  pids(launcher, 3);
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(launcher.rest(), "coordinator told to end\n");
}

TEST(Serving, TheCoordinatorsDeathEndsTheJob) {
  LocalWorkersOptions options = serving(2, 3);
  options.grace = 1ms;
  LauncherProcess launcher(2,
                           "trap 'echo worker $TRIREME_RANK told to end >&9; exit 0' TERM;"
                           "echo worker $TRIREME_RANK pid $$ >&9; sleep 1000 & wait",
                           options);
  const auto pid = pids(launcher, 5);
  kill(pid.at("coordinator"), SIGKILL);
  EXPECT_EQ(launcher.wait(), 1);
  const std::string said = launcher.rest();
  EXPECT_THAT(said, HasSubstr("worker 0 told to end"));
  EXPECT_THAT(said, HasSubstr("worker 1 told to end"));
  EXPECT_THAT(launcher.log(), ContainsRegex("coordinator \\(pid [0-9]+\\) was killed by signal 9"));
  EXPECT_THAT(launcher.log(), Not(HasSubstr("started again")));
}

// Both have ended when the launcher looks: the coordinator had nothing left to do.
TEST(Serving, TheCoordinatorMayDieWithTheLastWorker) {
  for (const int worker_status : {0, 5}) {
    LauncherProcess launcher(1, kWork + "exit " + std::to_string(worker_status), serving(1));
    const auto pid = pids(launcher, 3);
    launcher.send(SIGSTOP);
    int status = 0;
    ASSERT_EQ(waitpid(launcher.pid(), &status, WUNTRACED), launcher.pid());
    launcher.release();
    kill(pid.at("coordinator"), SIGKILL);
    for (const char* name : {"worker 0", "coordinator"}) {
      ASSERT_TRUE(wait_for_end(pid.at(name)));
    }
    launcher.send(SIGCONT);
    EXPECT_EQ(launcher.wait(), worker_status == 0 ? 0 : 1) << launcher.log();
    EXPECT_EQ(launcher.rest(), "server 0 told to end\n");
  }
}

// Who knows the coordinator to be gone can say so first.
TEST(Serving, WorkersHaveTheirGraceWhenTheCoordinatorIsGone) {
  LauncherProcess launcher(1, "trap 'echo told >&9' TERM;" + kWork + "echo lost it >&9; exit 1",
                           serving(1, 0, "exec sleep 1000"));
  const auto pid = pids(launcher, 2);
  kill(pid.at("coordinator"), SIGKILL);
  ASSERT_TRUE(wait_for_reaping(pid.at("coordinator")));
  launcher.release();
  EXPECT_EQ(launcher.rest(), "lost it\n");
  EXPECT_EQ(launcher.wait(), 1);
}

// Whoever finds it; and nobody starts again to find it again.
TEST(Serving, AMistakeOfTheUserEndsTheJobAtOnce) {
  const std::string script =
      "[ $TRIREME_ROLE = $WHO ] && [ ${TRIREME_RANK-1} = 1 ] &&"
      "  { echo ready >&9; read x <&8; exit 2; };"
      "trap 'echo $TRIREME_ROLE ended >&9; exit 0' TERM; echo ready >&9; sleep 1000 & wait";
  for (const char* role : {"worker", "server", "coordinator"}) {
    SCOPED_TRACE(role);
    LauncherProcess launcher(2, script, serving(1, 4, script, script),
                             [&] { setenv("WHO", role, 1); });
    EXPECT_THAT(launcher.lines(4), ElementsAre("ready", "ready", "ready", "ready"));
    launcher.release();
    EXPECT_EQ(launcher.wait(), 2) << launcher.log();
    EXPECT_EQ(sorted_lines(launcher.rest()).size(), 3U);
    EXPECT_THAT(launcher.log(), ContainsRegex(std::string(role) + ".* ended with status 2"));
    EXPECT_THAT(launcher.log(), Not(HasSubstr("started again")));
  }
}

TEST(Serving, RequestsToEndReachTheWorkersFirst) {
  const struct {
    int sent;
    const char* arrives;
  } cases[] = {{SIGINT, "INT"}, {SIGTERM, "TERM"}, {SIGHUP, "TERM"}};
  for (const auto& test : cases) {
    SCOPED_TRACE(test.sent);
    // The handler ends the script only after the test has let it: it is saving.
    LauncherProcess launcher(2,
                             "trap 'echo INT >&9; read x <&8; exit 0' INT;"
                             "trap 'echo TERM >&9; read x <&8; exit 0' TERM;"
                             "echo worker $TRIREME_RANK pid $$ >&9; sleep 1000 & wait",
                             serving(2));
    const auto pid = pids(launcher, 5);
    launcher.send(test.sent);
    EXPECT_THAT(launcher.lines(2), ElementsAre(test.arrives, test.arrives));
    // One that dies while the workers save is not started again, and does not end the job.
    kill(pid.at("server 1"), SIGKILL);
    ASSERT_TRUE(wait_for_reaping(pid.at("server 1")));
    launcher.release();
    EXPECT_THAT(sorted_lines(launcher.rest()),
                ElementsAre("coordinator told to end", "server 0 told to end"));
    EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  }
}

TEST(Serving, AWorkerThatFailsWhenAskedToEndFailsTheJob) {
  LauncherProcess launcher(2,
                           "trap 'exit 1' TERM; [ $TRIREME_RANK = 0 ] && { echo $$ >&9; exit 0; };"
                           "echo $$ >&9; sleep 1000 & wait",
                           serving(1, 3, "exec sleep 1000", "exec sleep 1000"));
  EXPECT_EQ(launcher.lines(2).size(), 2U);
  launcher.send(SIGTERM);
  EXPECT_EQ(launcher.wait(), 1);
  EXPECT_THAT(launcher.log(), Not(HasSubstr("started again")));
}

TEST(Serving, WhoServesAndIgnoresSigtermIsKilled) {
  LocalWorkersOptions options =
      serving(2, 0, "trap '' TERM; echo ready >&9; read x <&8; exec sleep 1000",
              "trap '' TERM; echo ready >&9; read x <&8; exec sleep 1000");
  options.grace = 1ms;
  LauncherProcess launcher(1, "echo ready >&9;" + kGate, options);
  EXPECT_EQ(launcher.lines(4).size(), 4U);
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(launcher.rest(), "");
  EXPECT_THAT(launcher.log(), HasSubstr("coordinator, server 0, 1 did not end on SIGTERM"));
}

TEST(Serving, SecondInterruptKillsAll) {
  const std::string deaf =
      "trap 'echo INT >&9' INT; trap '' TERM; echo ready >&9; while :; do sleep 1000 & wait; done";
  LauncherProcess launcher(2, deaf, serving(2, 0, deaf, deaf));
  EXPECT_EQ(launcher.lines(5).size(), 5U);
  launcher.send(SIGINT);
  EXPECT_THAT(launcher.lines(2), ElementsAre("INT", "INT"));
  launcher.send(SIGINT);
  EXPECT_EQ(launcher.wait(), 1);
  EXPECT_EQ(launcher.rest(), "");
}

TEST(Serving, AllDieWithTheirLauncher) {
  const std::string deaf = "trap '' TERM INT HUP; echo ready >&9; exec sleep 1000";
  LauncherProcess launcher(2, deaf, serving(2, 3, deaf, deaf));
  EXPECT_EQ(launcher.lines(5).size(), 5U);
  launcher.send(SIGKILL);
  EXPECT_EQ(launcher.wait(), -SIGKILL);
  EXPECT_EQ(launcher.rest(), "");
}

TEST(Serving, WhatAServerLeavesBehindEndsWithIt) {
  LauncherProcess launcher(
      1, kGate,
      serving(1, 0, "sleep 1000 & echo server $$ >&9; exec sleep 1000", "exec sleep 1000"));
  EXPECT_EQ(launcher.lines(1).size(), 1U);
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(launcher.rest(), "");
}

// It has finished, which is odd but nothing that another could do better.
TEST(Serving, AServerThatEndsWellIsNotStartedAgain) {
  LauncherProcess launcher(1, kWork,
                           serving(2, 3, "[ $TRIREME_PS_INDEX = 0 ] && exit 0;" + kServe));
  pids(launcher, 3);
  ASSERT_TRUE(wait_until([&] {
    return launcher.log().find("ended with status 0, before the workers") != std::string::npos;
  }));
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0);
  EXPECT_THAT(sorted_lines(launcher.rest()),
              ElementsAre("coordinator told to end", "server 1 told to end"));
  EXPECT_THAT(launcher.log(), Not(HasSubstr("started again")));
}

TEST(Serving, Prefix) {
  const std::string say = "echo hello; echo warning >&2; ";
  LocalWorkersOptions options =
      serving(2, 1, say + "echo said >&9; exec sleep 1000", say + "echo said >&9; exec sleep 1000");
  options.prefix = true;
  LauncherProcess launcher(2,
                           say +
                               "echo said >&9; read x <&8; [ $TRIREME_RANK = 0 ] && "
                               "[ -z $TRIREME_RESTART ] && exit 1; exit 0",
                           options);
  EXPECT_EQ(launcher.lines(5).size(), 5U);
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0);
  const std::string log = launcher.log();
  for (const char* line : {"[0] hello\n", "[1] hello\n", "[1] warning\n", "[server 0] hello\n",
                           "[server 1] warning\n", "[coordinator] hello\n"}) {
    EXPECT_THAT(log, HasSubstr(line));
  }
  EXPECT_NE(log.find("[0] hello"), log.rfind("[0] hello")) << "of the one started again";
}

TEST(Serving, LogFolder) {
  testing::TemporaryFolder folder;
  LocalWorkersOptions options =
      serving(2, 1, "echo server $TRIREME_PS_INDEX; echo said >&9; exec sleep 1000",
              "echo coordinator; echo oops >&2; echo said >&9; exec sleep 1000");
  options.log_folder = folder / "logs";
  LauncherProcess launcher(2,
                           "echo rank $TRIREME_RANK ${TRIREME_RESTART-0}; echo said >&9;"
                           "read x <&8; [ $TRIREME_RANK = 0 ] && [ -z $TRIREME_RESTART ] && exit 1;"
                           "exit 0",
                           options);
  EXPECT_EQ(launcher.lines(5).size(), 5U);
  launcher.release();
  EXPECT_EQ(launcher.wait(), 0) << launcher.log();
  EXPECT_EQ(read_text(folder / "logs/rank-0.out"), "rank 0 0\nrank 0 1\n");
  EXPECT_EQ(read_text(folder / "logs/rank-1.out"), "rank 1 0\n");
  EXPECT_EQ(read_text(folder / "logs/server-0.out"), "server 0\n");
  EXPECT_EQ(read_text(folder / "logs/server-1.out"), "server 1\n");
  EXPECT_EQ(read_text(folder / "logs/coordinator.out"), "coordinator\n");
  EXPECT_EQ(read_text(folder / "logs/coordinator.err"), "oops\n");
}

TEST(Serving, RefusesBadOptions) {
  LocalWorkersOptions good = serving(1);
  good.command = {"/bin/true"};
  LocalWorkersOptions options = good;
  options.parameter_servers->servers = 0;
  EXPECT_THROW(run_local_workers(options), ConfigError);
  options = good;
  options.parameter_servers->restarts = -1;
  EXPECT_THROW(run_local_workers(options), ConfigError);
  options = good;
  options.parameter_servers->server_command.clear();
  EXPECT_THROW(run_local_workers(options), ConfigError);
  options = good;
  options.parameter_servers->server_command = {"/no/such/server"};
  options.parameter_servers->coordinator_command = {"/bin/sleep", "1000"};
  try {
    run_local_workers(options);
    ADD_FAILURE() << "it was executed";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("cannot execute /no/such/server as a server"));
  }
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
}

}  // namespace
}  // namespace trireme

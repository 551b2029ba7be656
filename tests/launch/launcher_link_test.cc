// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Jobs with parameter servers under two launchers, as on two hosts: what each must know of the
// other.

#include "trireme/launch/launcher_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <set>
#include <sstream>

#include "tests/launch/launcher_process.h"
#include "trireme/base/file_descriptor.h"

namespace trireme {
namespace {

using detail::WorkersOutcome;

using namespace std::chrono_literals;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::LauncherProcess;
using ::testing::Not;
using ::testing::UnorderedElementsAre;
using testing::wait_until;

// Long enough that a test which waits for it fails by its own patience first.
constexpr auto kForever = std::chrono::minutes(30);

std::vector<std::string> shell(const std::string& script) { return {"/bin/sh", "-c", script}; }

// Bound but not listening, and others may listen there who say SO_REUSEADDR: nobody is given the
// port by chance. Of a port that somebody has: none.
FileDescriptor reserve(int port) {
  FileDescriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const int on = 1;
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
    return {};
  }
  return fd;
}

// The ports of a job of several launchers, kept from others.
class JobPorts {
 public:
  JobPorts() {
    while (!coordinator_) {
      rendezvous_ = reserve(0);
      sockaddr_in address{};
      socklen_t size = sizeof address;
      getsockname(rendezvous_.get(), reinterpret_cast<sockaddr*>(&address), &size);
      port_ = ntohs(address.sin_port);
      coordinator_ = reserve(port_ + 2);
    }
  }
  int rendezvous() const { return port_; }

 private:
  int port_ = 0;
  FileDescriptor rendezvous_;
  FileDescriptor coordinator_;
};

// Serves until it is told to end, and says so.
const std::string kServe =
    "trap 'echo $TRIREME_ROLE $TRIREME_PS_INDEX told to end >&9; exit 0' TERM;"
    "echo ready $$ >&9; sleep 1000 & wait";
// Says that it runs, then waits for the test.
const std::string kWork = "echo ready $$ >&9; read x <&8 || :;";

// R: it runs, S: it sleeps, T: it is stopped.
char state_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  return text.at(text.rfind(')') + 2);
}

struct TwoLaunchers {
  // Each has one server and two workers; node 0 the coordinator too.
  explicit TwoLaunchers(const std::string& worker, const std::string& serve = kServe,
                        std::chrono::milliseconds grace = kForever) {
    for (const int node : {1, 0}) {  // whoever comes first waits
      nodes[node] = std::make_unique<LauncherProcess>(2, worker, options(node, serve, grace));
    }
  }

  LocalWorkersOptions options(int node, const std::string& serve,
                              std::chrono::milliseconds grace) const {
    LocalWorkersOptions options;
    options.port = ports.rendezvous();
    options.share = JobShare{.first_rank = 2 * node,
                             .world_size = 4,
                             .address = "127.0.0.1",
                             .secret = "a secret of this test",
                             .node = node,
                             .nodes = 2};
    options.parameter_servers = ServingOptions{.servers = 1,
                                               .server_command = shell(serve),
                                               .coordinator_command = shell(serve),
                                               .restarts = 1};
    options.grace = grace;
    options.interrupt_grace = options.terminate_grace = kForever;
    return options;
  }

  LauncherProcess& operator[](int node) { return *nodes[node]; }
  // All say "ready".
  void wait_until_ready() {
    EXPECT_EQ(nodes[0]->lines(4).size(), 4U);
    EXPECT_EQ(nodes[1]->lines(3).size(), 3U);
  }
  bool logged(int node, const std::string& text) const {
    return wait_until([&] { return nodes[node]->log().find(text) != std::string::npos; });
  }

  JobPorts ports;
  std::unique_ptr<LauncherProcess> nodes[2];
};

TEST(LauncherLink, EachKnowsWhoItIs) {
  const std::string say =
      "echo $TRIREME_ROLE ${TRIREME_PS_INDEX-none} ${TRIREME_RANK-none} $TRIREME_PS_SERVERS "
      "$TRIREME_PS_WORKERS $TRIREME_PS_COORDINATOR ${TRIREME_LISTEN_FD+listens} >&9;";
  TwoLaunchers job(say + "read x <&8 || :", say + "exec sleep 1000");
  const std::string common = " 2 4 127.0.0.1:" + std::to_string(job.ports.rendezvous() + 2);
  EXPECT_THAT(
      job[0].lines(4),
      UnorderedElementsAre("coordinator none none" + common + " listens", "server 0 none" + common,
                           "worker none 0" + common + " listens", "worker none 1" + common));
  EXPECT_THAT(job[1].lines(3),
              UnorderedElementsAre("server 1 none" + common, "worker none 2" + common,
                                   "worker none 3" + common));
  for (const int node : {0, 1}) job[node].release();
  for (const int node : {0, 1}) EXPECT_EQ(job[node].wait(), 0) << job[node].log();
}

TEST(LauncherLink, ServersStayUntilTheLastWorkerOfAll) {
  for (const int first : {0, 1}) {
    SCOPED_TRACE(first);
    TwoLaunchers job(kWork + "echo worked >&9");
    job.wait_until_ready();
    const int second = 1 - first;
    job[first].release();
    EXPECT_THAT(job[first].lines(2), ElementsAre("worked", "worked"));
    ASSERT_TRUE(job.logged(first, "the workers of this host have ended; those of others"));
    job[second].release();
    EXPECT_THAT(job[second].lines(2), ElementsAre("worked", "worked"));
    const std::string said = job[0].rest();
    EXPECT_THAT(said, HasSubstr("coordinator told to end"));
    EXPECT_THAT(said, HasSubstr("server 0 told to end"));
    EXPECT_EQ(job[1].rest(), "server 1 told to end\n");
    for (const int node : {0, 1}) EXPECT_EQ(job[node].wait(), 0) << job[node].log();
  }
}

// The status is the job's, on every host.
TEST(LauncherLink, OneWorkerThatEndsWellIsEnough) {
  for (const int good : {0, 1}) {
    SCOPED_TRACE(good);
    TwoLaunchers job(kWork + "[ $TRIREME_RANK = " + std::to_string(3 * good) + " ] || exit 6");
    job.wait_until_ready();
    for (const int node : {0, 1}) job[node].release();
    for (const int node : {0, 1}) EXPECT_EQ(job[node].wait(), 0) << job[node].log();
    EXPECT_THAT(job[1 - good].log(), HasSubstr("the job was finished without worker"));
  }
  TwoLaunchers job(kWork + "exit 6");
  job.wait_until_ready();
  for (const int node : {0, 1}) job[node].release();
  for (const int node : {0, 1}) EXPECT_EQ(job[node].wait(), 1) << job[node].log();
}

// The kernel kills the processes of a launcher that is killed, not what they have started: here
// that is nothing.
TEST(LauncherLink, AHostMayBeLost) {
  TwoLaunchers job(kWork, "echo ready >&9; exec sleep 1000");
  job.wait_until_ready();
  job[1].send(SIGKILL);
  EXPECT_EQ(job[1].wait(), -SIGKILL);
  EXPECT_EQ(job[1].rest(), "");
  ASSERT_TRUE(job.logged(0, "the launcher of node 1"));
  EXPECT_THAT(job[0].log(), HasSubstr("is lost, with its servers and workers"));
  job[0].release();
  EXPECT_EQ(job[0].wait(), 0) << job[0].log();
}

TEST(LauncherLink, TheHostOfTheCoordinatorMayNot) {
  TwoLaunchers job("echo ready >&9; exec sleep 1000", "echo ready >&9; exec sleep 1000", 1ms);
  job.wait_until_ready();
  job[0].send(SIGKILL);
  EXPECT_EQ(job[0].wait(), -SIGKILL);
  EXPECT_EQ(job[0].rest(), "");
  EXPECT_EQ(job[1].wait(), 1);
  EXPECT_THAT(job[1].log(), ContainsRegex("the launcher of node 0 .* is lost"));
  EXPECT_EQ(job[1].rest(), "");
}

TEST(LauncherLink, TheCoordinatorsDeathEndsTheJobEverywhere) {
  TwoLaunchers job("trap 'exit 0' TERM; echo ready >&9; sleep 1000 & wait",
                   "echo ready >&9; [ $TRIREME_ROLE = coordinator ] && { read x <&8; kill -9 $$; };"
                   "exec sleep 1000",
                   1ms);
  job.wait_until_ready();
  job[0].release();
  for (const int node : {0, 1}) EXPECT_EQ(job[node].wait(), 1) << job[node].log();
  for (const int node : {0, 1}) EXPECT_EQ(job[node].rest(), "");
  EXPECT_THAT(job[1].log(), ContainsRegex("the launcher of node 0 .* ends the job with status 1"));
}

TEST(LauncherLink, AMistakeOfTheUserEndsTheJobEverywhere) {
  for (const int node : {0, 1}) {
    SCOPED_TRACE(node);
    TwoLaunchers job(
        "trap 'echo told >&9; exit 0' TERM; echo ready >&9;"
        "[ $TRIREME_RANK = " +
        std::to_string(2 * node) + " ] && { read x <&8; exit 2; }; sleep 1000 & wait");
    job.wait_until_ready();
    job[node].release();
    for (const int other : {0, 1}) EXPECT_EQ(job[other].wait(), 2) << job[other].log();
    EXPECT_THAT(job[1 - node].rest(), HasSubstr("told\ntold\n"));
  }
}

TEST(LauncherLink, ARequestToEndReachesTheWorkersOfAll) {
  for (const int asked : {0, 1}) {
    SCOPED_TRACE(asked);
    TwoLaunchers job("trap 'echo INT >&9; exit 0' INT; echo ready >&9; sleep 1000 & wait");
    job.wait_until_ready();
    job[asked].send(SIGINT);
    for (const int node : {0, 1}) {
      EXPECT_THAT(job[node].lines(2), ElementsAre("INT", "INT"));
      EXPECT_EQ(job[node].wait(), 0) << job[node].log();
    }
  }
}

// A terminal or a batch system may ask both launchers, and they ask each other.
TEST(LauncherLink, AskedBothWaysIsAskedOnce) {
  TwoLaunchers job(
      "trap 'echo INT >&9' INT; trap 'exit 0' USR1; echo worker $$ >&9;"
      "while :; do sleep 1000 & wait; done",
      "echo serving >&9; exec sleep 1000");
  std::vector<pid_t> workers;
  for (const int node : {0, 1}) {
    for (const std::string& line : job[node].lines(4 - static_cast<std::size_t>(node))) {
      if (line.starts_with("worker ")) workers.push_back(std::stoi(line.substr(7)));
    }
  }
  ASSERT_EQ(workers.size(), 4U);
  job[0].send(SIGINT);
  for (const int node : {0, 1}) EXPECT_THAT(job[node].lines(2), ElementsAre("INT", "INT"));
  job[1].send(SIGINT);
  ASSERT_TRUE(job.logged(1, "Interrupt: passed on"));
  // What it does about it is done when it sleeps again.
  EXPECT_TRUE(wait_until([&] { return state_of(job[1].pid()) == 'S'; }));
  for (const pid_t worker : workers) kill(worker, SIGUSR1);
  for (const int node : {0, 1}) {
    EXPECT_EQ(job[node].wait(), 0) << job[node].log();
    EXPECT_EQ(job[node].rest(), "");
  }
}

// The sockets of the launchers stand at the port that it listens at.
TEST(LauncherLink, RankZeroMayStartAgain) {
  TwoLaunchers job("echo ${TRIREME_LISTEN_FD+listens} $$ >&9; read x <&8 || :", "exec sleep 1000");
  std::vector<std::string> lines = job[0].lines(2);
  ASSERT_EQ(lines.size(), 2U);
  std::ranges::sort(lines);  // that of rank 1 begins with a space
  ASSERT_THAT(lines[1], HasSubstr("listens "));
  kill(std::stoi(lines[1].substr(8)), SIGKILL);
  EXPECT_THAT(job[0].lines(1), ElementsAre(HasSubstr("listens ")));
  for (const int node : {0, 1}) job[node].release();
  for (const int node : {0, 1}) EXPECT_EQ(job[node].wait(), 0) << job[node].log();
}

TEST(LauncherLink, LaunchersMustAgree) {
  const JobPorts ports;
  std::unique_ptr<LauncherProcess> nodes[2];
  for (const int node : {1, 0}) {
    LocalWorkersOptions options;
    options.port = ports.rendezvous();
    options.share = JobShare{.first_rank = node,
                             .world_size = 2,
                             .address = "127.0.0.1",
                             .secret = "",
                             .node = node,
                             .nodes = 2};
    options.parameter_servers = ServingOptions{
        .servers = 1 + node, .server_command = shell(kServe), .coordinator_command = shell(kServe)};
    nodes[node] = std::make_unique<LauncherProcess>(1, "echo started >&9", options);
  }
  for (const auto& node : nodes) {
    EXPECT_EQ(node->wait(), LauncherProcess::kThrew);
    EXPECT_THAT(node->log(), HasSubstr("do not agree on what trireme launch starts"));
    EXPECT_THAT(node->log(), HasSubstr("2 servers and 1 workers"));
    EXPECT_EQ(node->rest(), "");
  }
}

TEST(WorkersOutcome, Status) {
  EXPECT_EQ((WorkersOutcome{.one_succeeded = true}).status(), 0);
  EXPECT_EQ((WorkersOutcome{.one_succeeded = true, .first_failure = 1}).status(), 0);
  EXPECT_EQ((WorkersOutcome{.first_failure = 2}).status(), 2);
  WorkersOutcome all{.one_succeeded = true};
  all.add({.first_failure = 1, .failure_when_ending = 2});
  all.add({.first_failure = 2, .failure_when_ending = 1});
  EXPECT_EQ(all.first_failure, 1);
  EXPECT_EQ(all.status(), 2);
}

}  // namespace
}  // namespace trireme

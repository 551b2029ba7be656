// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A job on several hosts, which are network namespaces: one is cut off from the others, for less
// than the heartbeat or for longer.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/ps/process_job.h"
#include "tests/support/network_namespaces.h"
#include "tests/support/temporary_folder.h"

namespace trireme::ps {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using trireme::testing::NetworkNamespaces;
using trireme::testing::RankProcess;
using trireme::testing::TemporaryFolder;

constexpr char kPort[] = "4711";

// A process of the job on a host; result() is what it prints. LibTorch does not survive a fork: the
// child becomes a program of its own.
RankProcess start(const NetworkNamespaces& net, int host, std::vector<std::string> words) {
  return RankProcess(0, [&net, host, words = std::move(words)]() mutable -> std::string {
    net.enter(host);
    words.insert(words.begin(), TRIREME_PS_PROCESS);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::dup2(RankProcess::result_fd(), STDOUT_FILENO);
    ::execv(TRIREME_PS_PROCESS, argv.data());
    return "exec failed";
  });
}

// Two workers, whose coordinator and first server are on host 0.
class Hosts {
 public:
  Hosts(const NetworkNamespaces& net, int servers, std::chrono::milliseconds heartbeat)
      : net_(net),
        coordinator_(start(net, 0,
                           {"coordinator", kPort, std::to_string(servers), "2",
                            std::to_string(heartbeat.count()), net.address(0)})) {}
  RankProcess server(int host, int index) const {
    return start(net_, host, {"server", net_.address(0), kPort, std::to_string(index)});
  }
  RankProcess worker(int host, int rank, int steps,
                     const std::vector<std::string>& actions = {}) const {
    std::vector<std::string> words = {"worker", net_.address(0),      kPort, std::to_string(rank),
                                      "whole",  std::to_string(steps)};
    words.insert(words.end(), actions.begin(), actions.end());
    return start(net_, host, std::move(words));
  }

 private:
  const NetworkNamespaces& net_;
  RankProcess coordinator_;
};

// Waits until the host, which is cut off, has sent so much in all.
bool sends_into_nowhere(const NetworkNamespaces& net, int host, std::int64_t bytes) {
  const Deadline deadline = Deadline::after(kTime);
  while (!deadline.expired()) {
    if (net.bytes_sent(host) >= bytes) return true;
    ::poll(nullptr, 0, 5);
  }
  return false;
}

// The worker and the backup of half of the ranges are away while a step is under way, for less time
// than silence may last: what was lost on the way is sent again, and nobody is taken for gone.
TEST(HostThatIsCutOff, LosesNothingWhenTheLinkComesBackInTime) {
  NetworkNamespaces net(2);
  if (!net.unavailable().empty()) GTEST_SKIP() << net.unavailable();
  const std::string expected = unbroken("whole", 12);
  const TemporaryFolder folder;
  const Gate gate(folder / "gate");
  const Hosts hosts(net, 2, kHeartbeat);
  RankProcess first_server = hosts.server(0, 0), second_server = hosts.server(1, 1);
  RankProcess first = hosts.worker(0, 0, 12), second = hosts.worker(1, 1, 12, gate.before(17));
  std::int64_t before = 0;
  {
    const FileDescriptor held = gate.hold();
    ASSERT_TRUE(held);
    net.cut(1);
    before = net.bytes_sent(1);
  }
  EXPECT_TRUE(sends_into_nowhere(net, 1, before + 3'000));
  net.mend(1);
  EXPECT_EQ(first.result(), expected);
  EXPECT_EQ(second.result(), expected);
  EXPECT_EQ(first_server.result(), "finished\n");
  EXPECT_EQ(second_server.result(), "finished\n");
}

// A server's host: the backups take over, and when it comes back it is told.
TEST(HostThatIsCutOff, IsReplacedWhereItHasAServer) {
  NetworkNamespaces net(3);
  if (!net.unavailable().empty()) GTEST_SKIP() << net.unavailable();
  const std::string expected = unbroken("whole", 12);
  const TemporaryFolder folder;
  const Gate gate(folder / "gate");
  const Hosts hosts(net, 2, kShortHeartbeat);
  RankProcess first_server = hosts.server(0, 0), second_server = hosts.server(1, 1);
  RankProcess first = hosts.worker(0, 0, 12), second = hosts.worker(2, 1, 12, gate.before(17));
  {
    const FileDescriptor held = gate.hold();
    ASSERT_TRUE(held);
    net.cut(1);
  }
  EXPECT_EQ(first.result(), expected);
  EXPECT_EQ(second.result(), expected);
  EXPECT_EQ(first_server.result(), "finished\n");
  net.mend(1);
  EXPECT_THAT(second_server.result(),
              AnyOf("dropped\n", StartsWith("exit 1CommError: server 1: the coordinator is lost")));
}

// A worker's host: the other goes on alone, and the worker ends with a line that says why.
TEST(HostThatIsCutOff, IsDroppedWhereItHasAWorker) {
  NetworkNamespaces net(2);
  if (!net.unavailable().empty()) GTEST_SKIP() << net.unavailable();
  const TemporaryFolder folder;
  const Gate gate(folder / "gate");
  const Hosts hosts(net, 1, kShortHeartbeat);
  RankProcess server = hosts.server(0, 0);
  RankProcess first = hosts.worker(0, 0, 12), second = hosts.worker(1, 1, 12, gate.before(17));
  {
    const FileDescriptor held = gate.hold();
    ASSERT_TRUE(held);
    net.cut(1);
  }
  const std::string out = first.result();
  EXPECT_EQ(out.size(), unbroken("whole", 1).size()) << "values, and no error: " << out;
  EXPECT_EQ(server.result(), "finished\n");
  net.mend(1);
  EXPECT_THAT(second.result(), AnyOf(HasSubstr("taken for gone"), HasSubstr("the job is over"),
                                     HasSubstr("the coordinator is lost")));
}

}  // namespace
}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Strangers on the ports of the gloo engine.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/network_namespaces.h"
#include "tests/support/ranks.h"
#include "trireme/base/deadline.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

using testing::kTestDeadline;
using testing::NetworkNamespaces;
using testing::RankProcess;

constexpr int kMeetingPort = 29500;

// TCP ports of 127.0.0.1 on which somebody in this network namespace listens.
std::set<int> listening_ports() {
  std::set<int> ports;
  std::ifstream table("/proc/self/net/tcp");
  std::string line;
  while (std::getline(table, line)) {
    unsigned address = 0;
    unsigned port = 0;
    unsigned state = 0;
    const int fields =
        std::sscanf(line.c_str(), " %*d: %8x:%4x %*8x:%*4x %2x", &address, &port, &state);
    constexpr unsigned kListen = 0x0a;
    if (fields == 3 && state == kListen && address == htonl(INADDR_LOOPBACK)) {
      ports.insert(static_cast<int>(port));
    }
  }
  return ports;
}

// Nothing where nobody listens any more.
FileDescriptor connect_to_port(int port) {
  FileDescriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const bool connected =
      connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  return connected ? std::move(fd) : FileDescriptor();
}

// In a process and a network of its own with the ranks: connects to every port there but known,
// sends garbage and holds the connections open.
class Stranger {
 public:
  Stranger(const NetworkNamespaces& net, int known) : Stranger(net, known, make_pipe()) {}

  // To how many ports it has got through.
  std::string end() {
    held_ = FileDescriptor();
    return process_.result();
  }

 private:
  using Pipe = std::pair<FileDescriptor, FileDescriptor>;

  Stranger(const NetworkNamespaces& net, int known, Pipe ends)
      : process_(4,
                 [&] {
                   ends.second = FileDescriptor();
                   net.enter(0);
                   return std::to_string(visit({known}, ends.first.get()));
                 }),
        held_(std::move(ends.second)) {}

  static Pipe make_pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    return {FileDescriptor(ends[0]), FileDescriptor(ends[1])};
  }

  // Until nobody holds the other end of the pipe.
  static std::size_t visit(std::set<int> known, int pipe_end) {
    const std::string garbage(4096, '\x01');
    std::vector<FileDescriptor> connections;
    for (pollfd end{pipe_end, POLLIN, 0}; poll(&end, 1, 0) == 0;) {
      for (const int port : listening_ports()) {
        if (!known.insert(port).second) continue;
        FileDescriptor fd = connect_to_port(port);
        if (!fd) continue;
        // Even ones say something, odd ones only hold the line.
        if (connections.size() % 2 == 1) {
          [[maybe_unused]] const ssize_t n =
              ::send(fd.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL);
        }
        connections.push_back(std::move(fd));
      }
    }
    return connections.size();
  }

  RankProcess process_;
  FileDescriptor held_;  // the ranks have it, too, while they live
};

TEST(GlooStranger, DisturbsNobody) {
  const NetworkNamespaces net(1);
  if (!net.unavailable().empty()) GTEST_SKIP() << net.unavailable();
  int connections = 0;
  // Ports are open for an instant; on a busy machine a stranger may miss those of several rounds.
  const Deadline deadline = Deadline::after(kTestDeadline);
  for (int round = 0; round < 5 || (connections == 0 && !deadline.expired()); ++round) {
    const auto use_port = [](WorldOptions& options) {
      options.listen_fd = -1;
      options.port = kMeetingPort;
    };
    Stranger stranger(net, kMeetingPort);
    auto ranks = testing::start_processes(
        4,
        [&](const WorldOptions& options) {
          net.enter(0);
          const auto group = join_world(options);
          std::vector<std::int64_t> data(100003, group->rank() + 1);
          group->all_reduce(buffer_of(std::span(data)));
          group->close();
          return "sum " + std::to_string(data.back());
        },
        "gloo", use_port);
    for (auto& rank : ranks) EXPECT_EQ(rank.result(), "sum 10");
    connections += std::stoi(stranger.end());
  }
  EXPECT_GT(connections, 0) << "the stranger came too late every time";
}

}  // namespace
}  // namespace trireme

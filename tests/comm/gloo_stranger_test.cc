// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Strangers on the ports of the gloo engine.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/ranks.h"

namespace trireme {
namespace {

using testing::kTestDeadline;

// TCP ports of 127.0.0.1 on which somebody in this network namespace listens.
std::set<int> listening_ports() {
  std::set<int> ports;
  std::ifstream table("/proc/net/tcp");
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

int connect_to_port(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  return fd;
}

// Connects to every port that appears, sends garbage and holds the connections open.
class Stranger {
 public:
  Stranger() : known_(listening_ports()), thread_([this] { run(); }) {}
  ~Stranger() {
    stop_ = true;
    thread_.join();
    for (const int fd : connections_) ::close(fd);
  }
  std::size_t connections() const { return num_connections_; }

 private:
  void run() {
    const std::string garbage(4096, '\x01');
    while (!stop_) {
      for (const int port : listening_ports()) {
        if (!known_.insert(port).second) continue;
        const int fd = connect_to_port(port);
        connections_.push_back(fd);
        // Even ones say something, odd ones only hold the line.
        if (connections_.size() % 2 == 0) {
          [[maybe_unused]] const ssize_t n =
              ::send(fd, garbage.data(), garbage.size(), MSG_NOSIGNAL);
        }
        num_connections_ = connections_.size();
      }
    }
  }

  std::set<int> known_;
  std::vector<int> connections_;
  std::atomic<std::size_t> num_connections_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST(GlooStranger, DisturbsNobody) {
  std::size_t connections = 0;
  // Ports are open for an instant; beside other tests a stranger may miss those of several rounds.
  const Deadline deadline = Deadline::after(kTestDeadline);
  for (int round = 0; round < 5 || (connections == 0 && !deadline.expired()); ++round) {
    auto ranks = testing::start_processes(
        4,
        [](const WorldOptions& options) {
          const auto group = join_world(options);
          testing::RankProcess::say("joined");
          std::vector<std::int64_t> data(100003, group->rank() + 1);
          group->all_reduce(buffer_of(std::span(data)));
          group->close();
          return "sum " + std::to_string(data.back());
        },
        "gloo");
    {
      const Stranger stranger;
      for (auto& rank : ranks) EXPECT_EQ(rank.result(), "joined\nsum 10");
      connections += stranger.connections();
    }
  }
  EXPECT_GT(connections, 0u) << "the stranger came too late every time";
}

}  // namespace
}  // namespace trireme

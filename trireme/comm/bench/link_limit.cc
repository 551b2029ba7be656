// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/link_limit.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme {
namespace {

constexpr auto kTimeout = std::chrono::seconds(20);
constexpr std::size_t kChunk = std::size_t{512} << 10;
constexpr std::size_t kFirstPass = std::size_t{4} << 20;
constexpr double kPassSeconds = 0.1;
constexpr int kPasses = 5;

// Where a rank listens, and what a connection must say first so that no stranger is measured.
struct Endpoint {
  std::array<char, 64> address{};
  std::int32_t port = 0;
  std::uint64_t token = 0;
};

[[noreturn]] void too_late(const char* what) {
  throw_error<CommError>("measuring the link: {} within {} s", what, kTimeout.count());
}

void wait_for(int fd, short events, const Deadline& deadline, const char* what) {
  pollfd ready{fd, events, 0};
  if (::poll(&ready, 1, static_cast<int>(deadline.remaining().count())) == 0) too_late(what);
}

FileDescriptor listen_at(const std::string& address, Endpoint& endpoint) {
  FileDescriptor listener = listen_on(address, 0);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    throw_error<CommError>("measuring the link: getsockname: {}", std::strerror(errno));
  }
  endpoint.port =
      ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(bound).sin6_port
                                        : reinterpret_cast<const sockaddr_in&>(bound).sin_port);
  if (address.size() >= endpoint.address.size()) {
    throw_error<ConfigError>("measuring the link: the address '{}' is too long", address);
  }
  std::copy(address.begin(), address.end(), endpoint.address.begin());
  if (::getrandom(&endpoint.token, sizeof endpoint.token, 0) != sizeof endpoint.token) {
    throw_error<Error>("getrandom: {}", std::strerror(errno));
  }
  return listener;
}

FileDescriptor connect_right(const Endpoint& right) {
  std::string why;
  std::optional<FileDescriptor> socket =
      connect_to(right.address.data(), right.port, Deadline::after(kTimeout), why);
  if (!socket) {
    throw_error<CommError>("measuring the link: cannot connect to {}: {}",
                           endpoint_text(right.address.data(), right.port), why);
  }
  std::string token(reinterpret_cast<const char*>(&right.token), sizeof right.token);
  write_available(*socket, token);  // an empty socket takes eight bytes
  return std::move(*socket);
}

FileDescriptor accept_left(const FileDescriptor& listener, std::uint64_t token) {
  const Deadline deadline = Deadline::after(kTimeout);
  while (true) {
    wait_for(listener.get(), POLLIN, deadline, "the rank before this one did not connect");
    bool exhausted = false;
    std::optional<FileDescriptor> socket = accept_from(listener, exhausted);
    if (!socket) continue;
    wait_for(socket->get(), POLLIN, deadline, "the rank before this one said nothing");
    std::uint64_t said = 0;
    if (::recv(socket->get(), &said, sizeof said, MSG_WAITALL) == sizeof said && said == token) {
      return std::move(*socket);
    }
  }
}

// Sends and receives at the same time.
class Link {
 public:
  Link(Group& group, const std::string& address) : buffer_(new std::byte[kChunk]()) {
    std::vector<Endpoint> all(static_cast<std::size_t>(group.size()));
    const auto rank = static_cast<std::size_t>(group.rank());
    Endpoint own;
    const FileDescriptor listener = listen_at(address, own);
    group.all_gather({&own, sizeof own, DType::kU8},
                     {all.data(), static_cast<std::int64_t>(all.size() * sizeof own), DType::kU8});
    out_ = connect_right(all[(rank + 1) % all.size()]);
    in_ = accept_left(listener, own.token);
  }

  void exchange(std::size_t bytes) {
    const Deadline deadline = Deadline::after(kTimeout);
    std::size_t to_send = bytes;
    std::size_t to_receive = bytes;
    while (to_send > 0 || to_receive > 0) {
      std::array<pollfd, 2> fds{pollfd{to_send > 0 ? out_.get() : -1, POLLOUT, 0},
                                pollfd{to_receive > 0 ? in_.get() : -1, POLLIN, 0}};
      if (::poll(fds.data(), fds.size(), static_cast<int>(deadline.remaining().count())) == 0) {
        too_late("a pass did not end");
      }
      if (fds[0].revents != 0) {
        to_send -=
            moved(::send(out_.get(), buffer_.get(), std::min(kChunk, to_send), MSG_NOSIGNAL));
      }
      if (fds[1].revents != 0) {
        to_receive -= moved(::recv(in_.get(), buffer_.get(), std::min(kChunk, to_receive), 0));
      }
    }
  }

 private:
  static std::size_t moved(ssize_t bytes) {
    if (bytes > 0) return static_cast<std::size_t>(bytes);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    throw_error<CommError>("measuring the link: the connection to a neighbour has ended");
  }

  std::unique_ptr<std::byte[]> buffer_;  // what is in it does not matter
  FileDescriptor out_;
  FileDescriptor in_;
};

// Of the slowest rank.
double pass_seconds(Group& group, Link& link, std::size_t bytes) {
  group.barrier();
  const auto start = std::chrono::steady_clock::now();
  link.exchange(bytes);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  group.all_reduce(buffer_of(std::span(&seconds, 1)), ReduceOp::kMax);
  return seconds;
}

}  // namespace

double measure_link_bytes_per_s(Group& group, const std::string& address) {
  Link link(group, address);
  const double rate = static_cast<double>(kFirstPass) / pass_seconds(group, link, kFirstPass);
  const auto bytes = std::max(kFirstPass / 8, static_cast<std::size_t>(rate * kPassSeconds));
  double best = 0;
  for (int i = 0; i < kPasses; ++i) {
    best = std::max(best, static_cast<double>(bytes) / pass_seconds(group, link, bytes));
  }
  return best;
}

std::string own_route_address(const std::string& to) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(to.c_str(), "9", &hints, &found); error != 0) {
    throw_error<ConfigError>("'{}' is no host: {}", to, ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all(found, &::freeaddrinfo);
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    const FileDescriptor socket(::socket(one->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    // Connecting a datagram socket only chooses the route.
    if (!socket || ::connect(socket.get(), one->ai_addr, one->ai_addrlen) != 0) continue;
    const std::string address = local_address(socket);
    if (!address.empty()) return address;
  }
  throw_error<ConfigError>("no way from this host to '{}'", to);
}

}  // namespace trireme

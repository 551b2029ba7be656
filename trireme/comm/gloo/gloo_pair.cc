// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/gloo/gloo_pair.h"

#include <fcntl.h>
#include <gloo/common/error.h>
#include <gloo/transport/address.h>
#include <gloo/transport/pair.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme {
namespace {

// Within this process; longer than any scheduling. Gloo waits five times a context's timeout.
constexpr std::chrono::milliseconds kConnectTime = std::chrono::seconds(20);
constexpr int kGlooConnectFactor = 5;

std::uint16_t port_of(const sockaddr_storage& address) {
  // At the same place for both families.
  static_assert(offsetof(sockaddr_in, sin_port) == offsetof(sockaddr_in6, sin6_port));
  return reinterpret_cast<const sockaddr_in&>(address).sin_port;
}

// Gloo writes an address as the system's structure, with words of its own behind it. The peer with
// the lower address is the one that listens: the unspecified address is the lowest, and leads to
// the loopback interface.
std::vector<char> lowest_address(std::vector<char> own, std::uint16_t port) {
  sockaddr_storage address{};
  TRIREME_ASSERT(own.size() >= sizeof(address), "a gloo address of {} bytes", own.size());
  std::memcpy(&address, own.data(), sizeof(address));
  sockaddr_storage lowest{};
  lowest.ss_family = address.ss_family;
  reinterpret_cast<sockaddr_in&>(lowest).sin_port = port;
  std::memcpy(own.data(), &lowest, sizeof(lowest));
  return own;
}

}  // namespace

GlooPairs::GlooPairs(gloo::transport::Context& context, gloo::transport::tcp::Device& device,
                     const std::string& address)
    : context_(context),
      device_(device),
      silent_(listen_on(address.find(':') == std::string::npos ? "127.0.0.1" : "::1", 0)) {
  context.setTimeout(kConnectTime / kGlooConnectFactor);
}

void GlooPairs::add(int peer, FileDescriptor connection) {
  sockaddr_storage silent{};
  socklen_t size = sizeof(silent);
  getsockname(silent_.get(), reinterpret_cast<sockaddr*>(&silent), &size);
  try {
    auto& pair = context_.createPair(peer);
    pair->connect(lowest_address(pair->address().bytes(), port_of(silent)));
    auto* handler = dynamic_cast<gloo::transport::tcp::Handler*>(pair.get());
    TRIREME_ASSERT(handler != nullptr, "a gloo pair that handles no events");
    const int fd = descriptor_of_new_pair();
    // What it referred to leaves the loop with it.
    if (dup3(connection.get(), fd, O_CLOEXEC) < 0) {
      throw_error<CommError>("cannot hand a connection to gloo: {}", std::strerror(errno));
    }
    device_.registerDescriptor(fd, EPOLLIN, handler);
  } catch (const gloo::Exception& error) {
    throw_error<CommError>("gloo cannot connect over the loopback interface: {}", error.what());
  }
  bool exhausted = false;
  accept_from(silent_, exhausted);  // and drop it
}

// The one whose other end is the silent socket.
int GlooPairs::descriptor_of_new_pair() const {
  sockaddr_storage silent{};
  socklen_t size = sizeof(silent);
  getsockname(silent_.get(), reinterpret_cast<sockaddr*>(&silent), &size);
  int found = -1;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename().string());
    sockaddr_storage other{};
    size = sizeof(other);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&other), &size) != 0) continue;
    if (other.ss_family != silent.ss_family || port_of(other) != port_of(silent)) continue;
    if (std::memcmp(&other, &silent, size) != 0) continue;
    TRIREME_ASSERT(found < 0, "descriptors {} and {} are both connected to gloo's", found, fd);
    found = fd;
  }
  TRIREME_ASSERT(found >= 0, "gloo connected, but no descriptor shows it");
  return found;
}

}  // namespace trireme

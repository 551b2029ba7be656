// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

#include "trireme/base/error.h"
#include "trireme/base/log.h"

namespace trireme {
namespace {

// A connection without traffic is probed after 1 s and then each second. The first probe that goes
// out when kSilence has passed without an answer ends it, which is the fourth, 4 s after the last
// sign of life; bytes that wait to be acknowledged end it after kSilence. A second remains of the
// five that Group promises, for the news to reach the ranks that are not connected to the lost one.
// The price: a peer that is stopped for that long while so much is sent to it that its kernel takes
// no more counts as lost; control connections carry a few kilobytes.
constexpr int kProbeAfterSeconds = 1;
constexpr int kProbeEverySeconds = 1;
constexpr int kProbes = 3;
constexpr int kSilenceMs = 3500;

// A lost SYN is sent again after 1 s and after 2 more.
constexpr std::chrono::milliseconds kConnectTime = std::chrono::seconds(5);

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

std::string error_text(int error) { return std::strerror(error); }

Addresses resolve(const char* address, int port, int flags, std::string& why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(address, std::to_string(port).c_str(), &hints, &found);
  if (status != 0) {
    why = fmt::format("{} cannot be resolved: {}", address != nullptr ? address : "any address",
                      gai_strerror(status));
    return {nullptr, freeaddrinfo};
  }
  return {found, freeaddrinfo};
}

void set_option(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof(value));
}

void prepare_connection(const FileDescriptor& fd) {
  set_option(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  end_when_silent(fd.get());
}

std::string numeric(const sockaddr_storage& address, socklen_t size) {
  char text[NI_MAXHOST] = "?";
  getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, text, sizeof(text), nullptr, 0,
              NI_NUMERICHOST);
  // An IPv4 peer of an IPv6 socket.
  constexpr std::string_view kMapped = "::ffff:";
  const std::string_view view = text;
  return std::string(view.starts_with(kMapped) ? view.substr(kMapped.size()) : view);
}

// A connection to a free port of this host may be given that very port as its own, and TCP then
// joins the socket to itself.
bool connected_to_itself(const FileDescriptor& fd) {
  sockaddr_storage own{};
  sockaddr_storage other{};
  socklen_t own_size = sizeof(own);
  socklen_t other_size = sizeof(other);
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &own_size);
  getpeername(fd.get(), reinterpret_cast<sockaddr*>(&other), &other_size);
  return own_size == other_size && std::memcmp(&own, &other, own_size) == 0;
}

// The listening socket, or an empty one with errno's value in error.
FileDescriptor try_listen(const addrinfo& info, int& error) {
  FileDescriptor fd(socket(info.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd) {
    set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (info.ai_family == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (bind(fd.get(), info.ai_addr, info.ai_addrlen) == 0 && listen(fd.get(), SOMAXCONN) == 0) {
      return fd;
    }
  }
  error = errno;
  return {};
}

}  // namespace

std::string endpoint_text(const std::string& address, int port) {
  const bool six = address.find(':') != std::string::npos;
  return six ? fmt::format("[{}]:{}", address, port) : fmt::format("{}:{}", address, port);
}

void end_when_silent(int fd) {
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kProbeAfterSeconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kProbeEverySeconds);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kSilenceMs);
}

bool is_loopback(const std::string& address) {
  in_addr four{};
  return address == "localhost" || address == "::1" ||
         (address.starts_with("127.") && inet_pton(AF_INET, address.c_str(), &four) == 1);
}

FileDescriptor listen_on(const std::string& address, int port, std::string_view who) {
  std::string why;
  int error = 0;
  const Addresses own = resolve(address.c_str(), port, 0, why);
  if (!own) throw_error<ConfigError>("{} cannot listen: {}", who, why);
  sockaddr_storage first{};
  std::memcpy(&first, own->ai_addr, own->ai_addrlen);
  const bool asked_for_loopback = is_loopback(address);
  // A host's own name often leads to 127.0.1.1 on that host, where no other host could connect.
  const bool usable = asked_for_loopback || !is_loopback(numeric(first, own->ai_addrlen));
  if (usable) {
    if (FileDescriptor fd = try_listen(*own, error)) return fd;
    if (error != EADDRNOTAVAIL && error != EADDRINUSE) {
      throw_error<ConfigError>("{} cannot listen on {}: {}", who, endpoint_text(address, port),
                               error_text(error));
    }
  }
  if (error != EADDRINUSE && !asked_for_loopback) {
    log_info("{} is no interface of this host: {} listens on all of them", address, who);
    for (const char* any : {"::", "0.0.0.0"}) {
      const Addresses all = resolve(any, port, AI_PASSIVE | AI_NUMERICHOST, why);
      if (!all) continue;
      if (FileDescriptor fd = try_listen(*all, error)) return fd;
      if (error == EADDRINUSE) break;
    }
  }
  if (error == EADDRINUSE) {
    throw_error<ConfigError>(
        "port {} of {} is in use; choose another one, or end the job that listens there", port,
        address);
  }
  throw_error<ConfigError>("{} cannot listen on {}: {}", who, endpoint_text(address, port),
                           error_text(error));
}

std::string own_address(const std::string& address, std::string& why) {
  const Addresses found = resolve(address.c_str(), 0, 0, why);
  for (const addrinfo* info = found.get(); info != nullptr; info = info->ai_next) {
    const FileDescriptor fd(socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd && bind(fd.get(), info->ai_addr, info->ai_addrlen) == 0) return local_address(fd);
    why = error_text(errno);
  }
  return {};
}

FileDescriptor adopt_listener(FileDescriptor listener, std::string_view who) {
  const int fd = listener.get();
  int listening = 0;
  socklen_t size = sizeof(listening);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0) {
    throw_error<ConfigError>("file descriptor {}, given to {}, is not a listening socket", fd, who);
  }
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return listener;
}

std::optional<FileDescriptor> accept_from(const FileDescriptor& listener, bool& exhausted) {
  FileDescriptor fd(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd) {
    exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    return std::nullopt;
  }
  prepare_connection(fd);
  return fd;
}

std::optional<FileDescriptor> connect_to(const std::string& address, int port,
                                         const Deadline& deadline, std::string& why) {
  const Addresses found = resolve(address.c_str(), port, 0, why);
  for (const addrinfo* info = found.get(); info != nullptr; info = info->ai_next) {
    FileDescriptor fd(socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
      why = error_text(errno);
      continue;
    }
    int error = connect(fd.get(), info->ai_addr, info->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      pollfd ready{fd.get(), POLLOUT, 0};
      socklen_t size = sizeof(error);
      const auto time = std::min(deadline.remaining(), kConnectTime);
      if (poll(&ready, 1, static_cast<int>(time.count())) != 1) {
        error = ETIMEDOUT;
      } else {
        getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      }
    }
    if (error == 0 && connected_to_itself(fd)) error = ECONNREFUSED;
    if (error == 0) {
      prepare_connection(fd);
      return fd;
    }
    why = error_text(error);
  }
  return std::nullopt;
}

IoStatus read_available(const FileDescriptor& fd, std::string& bytes) {
  char chunk[16384];
  // Bounded, so that one fast sender does not keep the others waiting.
  for (int i = 0; i < 16; ++i) {
    const ssize_t n = recv(fd.get(), chunk, sizeof(chunk), 0);
    if (n > 0) {
      bytes.append(chunk, static_cast<std::size_t>(n));
      if (static_cast<std::size_t>(n) < sizeof(chunk)) return IoStatus::kOk;
    } else if (n == 0) {
      return IoStatus::kClosed;
    } else if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK ? IoStatus::kOk : IoStatus::kClosed;
    }
  }
  return IoStatus::kOk;
}

IoStatus write_available(const FileDescriptor& fd, std::string& bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n >= 0) {
      bytes.erase(0, static_cast<std::size_t>(n));
    } else if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK ? IoStatus::kOk : IoStatus::kClosed;
    }
  }
  return IoStatus::kOk;
}

std::string peer_address(const FileDescriptor& fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getpeername(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return "?";
  return numeric(address, size);
}

int local_port(const FileDescriptor& fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  const in_port_t port = address.ss_family == AF_INET6
                             ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port
                             : reinterpret_cast<const sockaddr_in*>(&address)->sin_port;
  return ntohs(port);
}

std::string local_address(const FileDescriptor& fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return "?";
  return numeric(address, size);
}

}  // namespace trireme

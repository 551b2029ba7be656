// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Non-blocking TCP sockets that close themselves.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "trireme/base/deadline.h"

namespace trireme {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    Fd moved(std::move(other));
    std::swap(fd_, moved.fd_);
    return *this;
  }
  ~Fd();

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// True for 127.0.0.0/8, ::1 and localhost, by name: nothing is resolved.
bool is_loopback(const std::string& address);

// Listens on address:port: on the address itself where this host has it, else, for a name that
// leads here by another way, on all interfaces. Throws ConfigError when the port is in use.
Fd listen_on(const std::string& address, int port);

// The numeric address behind a name or address that is one of this host's own; empty when none is.
std::string own_address(const std::string& address, std::string& why);

// Makes a socket that already listens fit for us. Throws ConfigError when it does not listen.
Fd adopt_listener(Fd listener);

// The next waiting connection, or none.
std::optional<Fd> accept_from(const Fd& listener);

// One attempt. On failure returns none and says why.
std::optional<Fd> connect_to(const std::string& address, int port, const Deadline& deadline,
                             std::string& why);

enum class IoStatus { kOk, kClosed };
// Appends what there is to bytes, without blocking.
IoStatus read_available(const Fd& fd, std::string& bytes);
// Sends as much of bytes as goes without blocking and removes it.
IoStatus write_available(const Fd& fd, std::string& bytes);

// Numeric addresses, for messages and for other sockets of this host.
std::string peer_address(const Fd& fd);
std::string local_address(const Fd& fd);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/local_address.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>

#include "trireme/base/error.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme::ps {

// A datagram socket that is connected sends nothing, and knows its own address.
std::string address_towards(const std::string& address, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (status != 0) {
    throw_error<ConfigError>("the coordinator's address '{}' is no host's: {}", address,
                             gai_strerror(status));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const FileDescriptor fd(socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (fd.get() < 0 || connect(fd.get(), at->ai_addr, at->ai_addrlen) != 0) continue;
    return local_address(fd);
  }
  throw_error<ConfigError>("no way leads from this host to the coordinator's address '{}': {}",
                           address, std::strerror(errno));
}

}  // namespace trireme::ps

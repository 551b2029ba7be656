// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where something listens, as people write it.
#pragma once

#include <string>
#include <string_view>

namespace trireme {

struct Endpoint {
  std::string address;
  int port = 0;
};

// From "host:port" or "[::1]:port". said is how the user said it, such as "--rendezvous host0", for
// the message. Throws ConfigError.
Endpoint parse_endpoint(std::string_view text, std::string_view said);

}  // namespace trireme

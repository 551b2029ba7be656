// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/endpoint.h"

#include <charconv>
#include <system_error>

#include "trireme/base/error.h"

namespace trireme {
namespace {

constexpr int kHighestPort = 65535;

// 0 where it is none.
int port_in(std::string_view text) {
  int port = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, port);
  return error == std::errc() && stop == end && port >= 1 && port <= kHighestPort ? port : 0;
}

}  // namespace

Endpoint parse_endpoint(std::string_view text, std::string_view said) {
  const std::size_t colon = text.rfind(':');
  std::string_view address = text.substr(0, colon);
  const bool brackets = address.starts_with('[') && address.ends_with(']');
  if (brackets) address = address.substr(1, address.size() - 2);
  if (!brackets && address.find(':') != std::string_view::npos) {
    throw_error<ConfigError>("{}: an IPv6 address stands in brackets, as in [2001:db8::1]:29500",
                             said);
  }
  const int port = colon == std::string_view::npos ? 0 : port_in(text.substr(colon + 1));
  if (address.empty() || port == 0) {
    throw_error<ConfigError>("{} is not host:port with a port in [1, {}], such as host0:29500",
                             said, kHighestPort);
  }
  return {std::string(address), port};
}

}  // namespace trireme

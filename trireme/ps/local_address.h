// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <string>

namespace trireme::ps {

// The numeric address of this host from which packets to the other leave. Sends nothing. Throws
// ConfigError for a name that cannot be resolved or a host that cannot be reached.
std::string address_towards(const std::string& address, int port);

}  // namespace trireme::ps

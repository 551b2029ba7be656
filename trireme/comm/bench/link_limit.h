// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What plain TCP carries between the ranks: the limit that engines over the network are held
// against.
#pragma once

#include <string>

#include "trireme/comm/group.h"

namespace trireme {

// Bytes per second that every rank sends to the next one, round the end, while it receives as much
// from the one before: plain sockets, one thread, large writes, nothing else. The best of some
// passes, each as slow as its slowest rank. Collective; a group of two at least. address: where
// this rank can be reached, see own_route_address(). Throws ConfigError, CommError.
double measure_link_bytes_per_s(Group& group, const std::string& address);

// The numeric address of this host that packets to the given one leave from. Sends nothing. Throws
// ConfigError where there is no way.
std::string own_route_address(const std::string& to);

}  // namespace trireme

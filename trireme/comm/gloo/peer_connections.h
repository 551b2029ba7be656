// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// TCP connections between every two ranks of a world, each proven by both sides as in handshake.h.
//
//   rank r listens; it connects to every rank below it, and is connected to by every rank above it
//
//   connects -> listens   hello      magic, version, rank, size, nonce
//   listens -> connects   challenge  nonce, HMAC("rank 0", ...)
//   connects -> listens   proof      HMAC("member", ...)
//   listens -> connects   trusted    one byte
//
// Every message has a fixed size and exactly that is read, so that what comes after belongs to the
// connection's user. A stranger costs the listener one of kMaxStrangers places for kStrangerTime.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/comm/failure.h"

namespace trireme {

struct Endpoint {
  std::string address;  // numeric
  int port = 0;
};
// "[address]:port", and back. Throws ProtocolError.
std::string to_text(const Endpoint& endpoint);
Endpoint endpoint_of(const std::string& text);

struct PeerConnections {
  int rank = 0;
  int size = 1;
  // Known to the ranks of this world alone.
  std::string secret;
  // Of the ranks below this one, by rank.
  std::vector<Endpoint> lower;
  // Names a rank in errors.
  std::vector<std::string> hosts;
};

// Blocks until this rank is connected to all others; by rank, non-blocking. listener listens.
// Throws TimeoutError: names the ranks without a connection; the latched failure.
std::map<int, FileDescriptor> connect_peers(const PeerConnections& peers,
                                            const FileDescriptor& listener,
                                            const FailureLatch& latch, const Deadline& deadline);

}  // namespace trireme

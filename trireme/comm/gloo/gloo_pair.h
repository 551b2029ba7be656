// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Connections of the Gloo library that are made by us.
//
// Gloo takes the first who connects to a pair's port for the peer, whoever that is, and bytes that
// are not its protocol end the process by an exception on its thread. So ranks are connected by
// peer_connections.h, and every pair is given a connection that is proven.
//
// Gloo has no call for that. Each pair is therefore let to connect to a socket of this process,
// where nobody says anything, and then the descriptor that it got is made to refer to the proven
// connection, and entered into the device's loop again. Between the making of a pair and that
// moment its port is open for as long as two calls take; who comes in there is dropped unread.
#pragma once

#include <gloo/transport/context.h>
#include <gloo/transport/tcp/device.h>

#include <string>

#include "trireme/base/file_descriptor.h"

namespace trireme {

class GlooPairs {
 public:
  // address is the numeric address to which the device is bound. Throws CommError.
  GlooPairs(gloo::transport::Context& context, gloo::transport::tcp::Device& device,
            const std::string& address);

  // Makes the context's pair for the peer, on the connection. Throws CommError.
  void add(int peer, FileDescriptor connection);

 private:
  int descriptor_of_new_pair() const;

  gloo::transport::Context& context_;
  gloo::transport::tcp::Device& device_;
  FileDescriptor silent_;  // listens on the loopback interface
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// PeerClients: connections to the servers of the newest view, made when they are first needed.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "trireme/comm/rpc/client.h"
#include "trireme/ps/protocol/view.h"

namespace trireme::ps {

// Any thread may call any function.
class PeerClients {
 public:
  // The arena must outlive it.
  PeerClients(RpcArena& arena, std::string secret, std::string name);
  ~PeerClients() { close(); }

  // Connections to servers that are no longer in the view are closed: their calls end.
  void enter_view(const std::vector<ServerView>& servers);
  // The server's client where it is connected already; else null. Does not block.
  std::shared_ptr<RpcClient> connected(ServerId server) const;
  // The same, and connects where need be: blocks for as long as connecting may take, a second at
  // most. Null where it cannot, or the server is not in the view.
  std::shared_ptr<RpcClient> connect(ServerId server);
  // "server 1 at 10.0.0.7:4711", for messages.
  std::string describe(ServerId server) const;
  void close();

 private:
  struct Peer {
    ServerView server;
    std::shared_ptr<RpcClient> client;
    // For the next try. Short at first: a server that is gone is in the view for a while yet, and
    // who tries to reach it in vain does nothing else.
    std::chrono::milliseconds connect_time{50};
    std::shared_ptr<std::mutex> connecting = std::make_shared<std::mutex>();
  };

  RpcArena& arena_;
  const std::string secret_;
  const std::string name_;
  mutable std::mutex mutex_;
  std::map<ServerId, Peer> peers_;  // guarded by mutex_
  bool closed_ = false;             // guarded by mutex_
};

}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/peer_clients.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"

namespace trireme::ps {
namespace {

constexpr std::chrono::milliseconds kMostConnectTime{1000};

}  // namespace

PeerClients::PeerClients(RpcArena& arena, std::string secret, std::string name)
    : arena_(arena), secret_(std::move(secret)), name_(std::move(name)) {}

void PeerClients::enter_view(const std::vector<ServerView>& servers) {
  std::vector<std::shared_ptr<RpcClient>> gone;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    for (auto it = peers_.begin(); it != peers_.end();) {
      const bool there = std::any_of(servers.begin(), servers.end(), [&](const ServerView& server) {
        return server.id == it->first;
      });
      if (there) {
        ++it;
        continue;
      }
      gone.push_back(std::move(it->second.client));
      it = peers_.erase(it);
    }
    for (const ServerView& server : servers) peers_[server.id].server = server;
  }
  for (const auto& client : gone) {
    if (client != nullptr) client->close();
  }
}

std::shared_ptr<RpcClient> PeerClients::connected(ServerId server) const {
  const std::lock_guard lock(mutex_);
  const auto found = peers_.find(server);
  if (found == peers_.end() || found->second.client == nullptr) return nullptr;
  return found->second.client->connected() ? found->second.client : nullptr;
}

std::shared_ptr<RpcClient> PeerClients::connect(ServerId server) {
  if (auto client = connected(server)) return client;
  std::shared_ptr<std::mutex> connecting;
  {
    const std::lock_guard lock(mutex_);
    const auto found = peers_.find(server);
    if (closed_ || found == peers_.end()) return nullptr;
    connecting = found->second.connecting;
  }
  const std::lock_guard one(*connecting);
  if (auto client = connected(server)) return client;
  ServerView at;
  std::chrono::milliseconds time{0};
  {
    // There may have been a view while others tried.
    const std::lock_guard lock(mutex_);
    const auto found = peers_.find(server);
    if (closed_ || found == peers_.end()) return nullptr;
    at = found->second.server;
    time = std::exchange(found->second.connect_time,
                         std::min(2 * found->second.connect_time, kMostConnectTime));
  }
  std::shared_ptr<RpcClient> client;
  try {
    client = std::make_shared<RpcClient>(RpcClientOptions{.address = at.address,
                                                          .port = at.port,
                                                          .secret = secret_,
                                                          .arena = &arena_,
                                                          .name = name_,
                                                          .connect_timeout = time,
                                                          .host_id = {}});
  } catch (const CommError&) {
    return nullptr;
  }
  std::shared_ptr<RpcClient> former;
  {
    const std::lock_guard lock(mutex_);
    const auto found = peers_.find(server);
    if (closed_ || found == peers_.end()) return nullptr;
    former = std::exchange(found->second.client, client);
  }
  return client;
}

std::string PeerClients::describe(ServerId server) const {
  const std::lock_guard lock(mutex_);
  const auto found = peers_.find(server);
  if (found == peers_.end()) return "a server that is gone";
  const ServerView& at = found->second.server;
  return fmt::format("server {} at {}:{}", at.index, at.address, at.port);
}

void PeerClients::close() {
  std::map<ServerId, Peer> peers;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    peers.swap(peers_);
  }
  for (auto& [id, peer] : peers) {
    if (peer.client != nullptr) peer.client->close();
  }
}

}  // namespace trireme::ps

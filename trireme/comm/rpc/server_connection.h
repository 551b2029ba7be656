// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A server's connection to one client that it trusts: what requests come in, the memory that they
// name, and the replies that leave.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "trireme/base/file_descriptor.h"
#include "trireme/comm/rpc/aligned_bytes.h"
#include "trireme/comm/rpc/inbox.h"
#include "trireme/comm/rpc/memory.h"
#include "trireme/comm/rpc/outbox.h"
#include "trireme/comm/rpc/server.h"
#include "trireme/comm/rpc/wire.h"

namespace trireme::detail {

// Held by the server's loop while it is open, and by its unanswered requests.
class ServerConnection : public std::enable_shared_from_this<ServerConnection>, private FrameSink {
 public:
  // watch as Outbox's; client is for messages.
  ServerConnection(std::uint64_t id, std::string client, FileDescriptor fd,
                   std::function<void(bool)> watch);

  std::uint64_t id() const { return id_; }
  const std::string& client() const { return client_; }

  // The I/O thread: takes what has arrived and gives every whole request to on_request. Throws
  // ProtocolError or CommError when the connection is to be closed.
  IoStatus receive(const std::function<void(RpcRequest)>& on_request);
  // The I/O thread: the socket takes bytes again.
  void send_on() { outbox_.send(true); }
  // The I/O thread: the end. The client is told why, if that can be had without waiting.
  void close(const std::string& why);

  // Any thread.
  void reply(const RpcHead& head, std::string_view header, AlignedBytes payload);

 private:
  using Memory = std::shared_ptr<const ArenaMemory>;

  std::byte* place_for(const RpcHead& head) override;
  void deliver(const RpcHead& head, std::string header) override;
  void map_memory(std::string_view notice);
  Memory find(const RpcPlace& place, std::uint64_t bytes) const;

  // Constant after construction.
  const std::uint64_t id_;
  const std::string client_;

  FileDescriptor fd_;  // of the I/O thread; open while outbox_ sends
  Outbox outbox_;

  // Of the I/O thread.
  Inbox inbox_;
  AlignedBytes arriving_;  // the payload that is being received
  std::map<std::uint64_t, Memory> memories_;
  const std::function<void(RpcRequest)>* on_request_ = nullptr;  // during receive()
};

// What an RpcRequest stands for.
struct RequestState {
  std::shared_ptr<ServerConnection> connection;
  RpcHead head;
  std::string header;
  AlignedBytes received;                       // the payload, unless it lies in
  std::shared_ptr<const ArenaMemory> payload;  // memory of the client
  std::shared_ptr<const ArenaMemory> room;     // null: the reply's payload goes to
  AlignedBytes reply;                          // memory of ours
  std::span<std::byte> reply_space;            // the last that was given
};

}  // namespace trireme::detail

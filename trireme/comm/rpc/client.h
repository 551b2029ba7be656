// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Asks a server (server.h) and gets its replies: for processes that come and go, where the end of
// one must not end the others. Where everybody ends together, a Group is simpler and faster.
//
//   RpcClient client({.address = "10.0.0.7", .port = 4800, .secret = secret, .name = "worker 3"});
//   client.call({.method = kPush, .header = key, .payload = {gradient}, .priority = 2},
//               [&](const RpcReply& reply) { ... });                            // does not block
//   const RpcReply reply = client.call({.method = kPull, .reply_space = weights});   // blocks
//
// A server that ends, or whose host is silent for 5 s (meeting/socket.h), ends all calls under way
// with PeerLostError, which names the server and the method. Calls to other servers go on.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/comm/rpc/arena.h"

namespace trireme {

struct RpcClientOptions {
  // Of the server.
  std::string address = "127.0.0.1";
  int port = 0;
  // The job's. May be empty only while address is a loopback address.
  std::string secret;
  // Memory that servers of this host use in place; null for none. Need not outlive the client.
  RpcArena* arena = nullptr;
  // Of this process, in the server's messages: "worker 3".
  std::string name;
  // For the connection, tried again while nobody listens, and for the handshake.
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(30);
  // Ends with equal ids share a host. Empty: see host_identity.h.
  std::string host_id;
};

// Status codes are the caller's, but for this one: the server dropped the request unanswered.
constexpr std::uint32_t kRpcAbandoned = 0xffffffff;

constexpr std::size_t kRpcHeaderLimit = std::size_t{1} << 20;         // bytes
constexpr std::size_t kRpcInlinePayloadLimit = std::size_t{1} << 30;  // bytes, through the socket

// What header, payload and reply_space lie in is the caller's until the call has ended. After one
// that ended with an error, a server of this host may still read the payload and write to the
// reply_space where they lie in the arena: such memory is safe to use for something else only when
// the server process is gone, or has answered on another way that it is done. Memory outside of the
// arena is the caller's again in any case.
struct RpcCall {
  std::uint32_t method = 0;
  // At most kRpcHeaderLimit.
  std::string header;
  // One after the other for the receiver. A single span of 4 KiB or more in the arena goes to a
  // server of this host in place; all others go through the socket.
  std::vector<std::span<const std::byte>> payload;
  // Where the reply's payload goes: its size is the most that the server may send.
  std::span<std::byte> reply_space;
  // A higher one leaves first, among the calls of which nothing has left yet; equal ones leave in
  // the order of the calls.
  int priority = 0;
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

struct RpcReply {
  std::uint32_t status = 0;
  std::string header;
  std::size_t payload_bytes = 0;  // at the front of reply_space
  // PeerLostError or TimeoutError, with the server and the method; null when the server answered,
  // whatever the status.
  std::exception_ptr error;
};

namespace detail {
class ClientConnection;
}  // namespace detail

// One connection, with any number of calls under way; replies come in any order. Any thread may
// call any function.
class RpcClient {
 public:
  using Done = std::function<void(RpcReply)>;

  // Blocks until the server is connected and both ends have proved that they know the secret.
  // Throws ConfigError: a server with another secret or version of the protocol, no secret for an
  // address that is not loopback; TimeoutError: nobody listened or answered within connect_timeout;
  // PeerLostError: the server went away meanwhile.
  explicit RpcClient(const RpcClientOptions& options);
  // As close(). Not on the client's own thread, that is not in a done.
  ~RpcClient();
  RpcClient(const RpcClient&) = delete;
  RpcClient& operator=(const RpcClient&) = delete;

  // Does not block: what the socket does not take now leaves later. done runs once, on the client's
  // own thread (on the caller's when the connection is gone already), and must not block: all other
  // replies wait for it, and an end that reads nothing for 3 s while more is sent than the kernels
  // hold counts as lost (meeting/socket.h). It may call again. Throws ShapeError, without a done,
  // for a header or a payload over the limits.
  void call(RpcCall call, Done done);
  // Blocks until the reply. Never in a done. Throws reply.error, and ShapeError as above.
  RpcReply call(RpcCall call);

  // False once the connection is gone: it does not come back, make a new client.
  bool connected() const;
  // The server's memory is this host's: payloads in the arena travel in place.
  bool shares_memory() const;
  // Calls under way end with PeerLostError. Idempotent; when it returns, no done is running nor
  // will run (unless it is called in one).
  void close();

 private:
  const std::unique_ptr<detail::ClientConnection> connection_;
};

}  // namespace trireme

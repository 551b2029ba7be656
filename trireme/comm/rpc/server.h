// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Answers clients (client.h) that come and go. One thread of the server's moves all bytes; the
// requests are handed to whom on_request gives them, and any thread may answer them in any order.
//
//   RpcServer server({.address = "10.0.0.7", .secret = secret, .on_request = [&](RpcRequest
//   request) {
//     queue.push(std::move(request)); }});
//   ...
//   RpcRequest request = queue.pop();
//   const std::span<std::byte> space = request.reply_space(bytes_of(request.header()));
//   fill(space);
//   request.reply(kFine, "", space.size());
//
// A stranger (one that has not proved that it knows the secret) costs what the rendezvous allows it
// (meeting/rendezvous.h). A client that breaks the protocol loses its connection, with a reason in
// the log, and disturbs nobody.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace trireme {

namespace detail {
class ServerLoop;
struct RequestState;
}  // namespace detail

// One call of one client. Movable; one that is dropped unanswered is answered with kRpcAbandoned.
// May outlive the connection and the server: then the answer goes nowhere, and its memory stays
// valid nevertheless. One thread at a time.
class RpcRequest {
 public:
  explicit RpcRequest(std::unique_ptr<detail::RequestState> state);
  RpcRequest(RpcRequest&& other) noexcept;
  RpcRequest& operator=(RpcRequest&& other) noexcept;
  ~RpcRequest();

  // Of the client's connection; never used again by this server.
  std::uint64_t connection() const;
  // For messages: "worker 3 at 10.0.0.3".
  const std::string& client() const;
  std::uint32_t method() const;
  const std::string& header() const;
  // In the client's own memory where that is shared, which the client may change in breach of its
  // promise: check what you copied, not what lies there. Else what was received, at an address that
  // is a multiple of 64. Valid until reply().
  std::span<const std::byte> payload() const;

  // Where the reply's payload is to be written: in the client's own memory where that is shared,
  // else in memory that reply() sends, at an address that is a multiple of 64. Not zeroed. Valid
  // until reply(); a second call replaces the first. Throws ShapeError beyond what the client has
  // room for.
  std::span<std::byte> reply_space(std::size_t bytes);
  // The most that reply_space() gives.
  std::size_t reply_room() const;

  // Answers, once. payload_bytes of the last reply_space() are the payload. Does not block: what
  // the socket does not take now leaves later. Throws ShapeError for a header over kRpcHeaderLimit,
  // or more payload than reply_space() gave; then the request is still unanswered.
  void reply(std::uint32_t status, std::string_view header = {}, std::size_t payload_bytes = 0);

 private:
  std::unique_ptr<detail::RequestState> state_;
};

struct RpcServerOptions {
  // An address or name of this host. One that is not loopback wants a secret.
  std::string address = "127.0.0.1";
  int port = 0;  // 0: a free one
  // Already bound and listening, to be taken over instead of address and port; or -1.
  int listen_fd = -1;
  // The job's.
  std::string secret;
  // Both run on the server's own thread and must not block: all clients wait for them, and a server
  // that reads nothing for 3 s while more is sent to it than the kernels hold counts as lost
  // (meeting/socket.h). What they throw is logged.
  std::function<void(RpcRequest)> on_request;
  // Optional: a connection has ended, whatever the reason. Comes after its last request. Requests
  // of it that are still unanswered may be dropped.
  std::function<void(std::uint64_t connection)> on_closed;
  // Ends with equal ids share a host. Empty: see host_identity.h.
  std::string host_id;
};

// Any thread may call any function.
class RpcServer {
 public:
  // Listens when it returns. Throws ConfigError: port in use, no such address, no secret for an
  // address that is not loopback, a listen_fd that does not listen; CommError: no descriptor left.
  explicit RpcServer(RpcServerOptions options);
  // As close(). Not on the server's own thread.
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  int port() const;
  // Ends all connections; their calls end with PeerLostError. Idempotent; when it returns, no
  // callback is running nor will run (unless it is called in one).
  void close();

 private:
  const std::unique_ptr<detail::ServerLoop> loop_;
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/client.h"

#include <future>
#include <memory>
#include <utility>

#include "trireme/comm/rpc/client_connection.h"

namespace trireme {
namespace {

// For messages.
RpcClientOptions named(RpcClientOptions options) {
  if (options.name.empty()) options.name = "a client";
  return options;
}

}  // namespace

RpcClient::RpcClient(const RpcClientOptions& options)
    : connection_(std::make_unique<detail::ClientConnection>(named(options))) {}

RpcClient::~RpcClient() = default;

void RpcClient::call(RpcCall call, Done done) {
  connection_->call(std::move(call), std::move(done));
}

RpcReply RpcClient::call(RpcCall call) {
  // The client's thread may still be in set_value() when this one has the value.
  const auto promise = std::make_shared<std::promise<RpcReply>>();
  connection_->call(std::move(call),
                    [promise](RpcReply reply) { promise->set_value(std::move(reply)); });
  // The call's own timeout ends the wait.
  RpcReply reply = promise->get_future().get();
  if (reply.error != nullptr) std::rethrow_exception(reply.error);
  return reply;
}

bool RpcClient::connected() const { return connection_->connected(); }
bool RpcClient::shares_memory() const { return connection_->shares_memory(); }
void RpcClient::close() { connection_->close(); }

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/server.h"

#include <utility>

#include "trireme/comm/rpc/server_loop.h"

namespace trireme {

RpcServer::RpcServer(RpcServerOptions options)
    : loop_(std::make_unique<detail::ServerLoop>(std::move(options))) {}
RpcServer::~RpcServer() = default;

int RpcServer::port() const { return loop_->port(); }
void RpcServer::close() { loop_->close(); }

}  // namespace trireme

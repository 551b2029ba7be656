// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How the end of a job reaches its servers.

#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "trireme/comm/rpc/client.h"
#include "trireme/ps/coordinator.h"
#include "trireme/ps/messages.h"
#include "trireme/ps/worker.h"

namespace trireme::ps {
namespace {

JobLayout small_layout() {
  JobLayout layout;
  layout.sparse.tables = {{.name = "rows", .width = 3}};
  layout.sparse.slices = 2;
  return layout;
}

// Whether it was between two questions when the last worker left, or has asked nothing yet.
TEST(CoordinatorEnd, AServerThatAsksLateHearsThatTheJobIsOver) {
  Coordinator coordinator({.heartbeat = std::chrono::minutes(1)});
  RpcClientOptions options;
  options.port = coordinator.port();
  options.name = "server 0";
  RpcClient server(options);
  const auto call = [&](Method method, const std::string& header) {
    return server.call({.method = static_cast<std::uint32_t>(method),
                        .header = header,
                        .payload = {},
                        .reply_space = {}});
  };
  const auto registered = decode<Registered>(
      call(Method::kRegister,
           encode(Registration{.is_server = true, .index = 0, .address = "127.0.0.1", .port = 1}))
          .header);
  {
    Worker worker({.coordinator_port = coordinator.port()}, small_layout());
    worker.leave();
  }
  const RpcReply reply = call(Method::kWatch, encode(Watch{.id = registered.id}));
  ASSERT_EQ(reply.status, kStatusOk);
  EXPECT_TRUE(decode<Announcement>(reply.header).finished);
}

}  // namespace
}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One range without a job around it: what a server whose lease is over does with requests that it
// had taken before.

#include "trireme/ps/range_host.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "tests/ps/training.h"
#include "trireme/comm/rpc/client.h"

namespace trireme::ps {
namespace {

constexpr WorkerId kWorker = 7;
constexpr ServerId kSelf = 3;
constexpr Term kTerm = 1;

class AloneContext final : public RangeContext {
 public:
  BufferPool& buffers() override { return buffers_; }
  void send(ServerId, Method, const Replication&, Bytes,
            std::function<void(std::optional<Replicated>)> done) override {
    done(std::nullopt);
  }
  void report_ready(Term, std::uint32_t) override {}
  bool lease_holds() const override { return lease; }
  void fail(const std::string& why) override { ADD_FAILURE() << why; }

  std::atomic<bool> lease = true;

 private:
  RpcArena arena_;
  BufferPool buffers_{arena_};
};

TEST(RangeHost, WritesToNobodysMemoryWhenItsLeaseIsOver) {
  const JobLayout layout = dense_layout();
  const FlatSegment segment = layout.dense_ranges()[0];
  const auto count = static_cast<std::size_t>(segment.end - segment.begin);
  AloneContext context;
  Strands strands(1);
  RangeHost host(context, strands, kSelf, layout, 0);
  host.enter_view(kTerm, {.primary = kSelf}, {{.id = kWorker, .rank = 0}});
  RpcServer server({.secret = {},
                    .on_request =
                        [&](RpcRequest request) {
                          const auto method = static_cast<Method>(request.method());
                          auto header = decode<RangeRequest>(request.header());
                          host.handle(method, std::move(header), std::move(request));
                        },
                    .on_closed = {},
                    .host_id = {}});
  RpcArena arena;
  const SharedBuffer first = arena.allocate(count * sizeof(float));
  const SharedBuffer out = arena.allocate(count * sizeof(float));
  for (std::size_t i = 0; i < count; ++i) {
    static_cast<float*>(first.data())[i] = first_weight(static_cast<std::int64_t>(i));
  }
  RpcClient client(
      {.port = server.port(), .secret = {}, .arena = &arena, .name = "worker 0", .host_id = {}});
  ASSERT_TRUE(client.shares_memory());
  const auto ask = [&](Method method) {
    RangeRequest header;
    header.range = 0;
    header.term = kTerm;
    header.asker = {kWorker, 0};
    RpcCall call{.method = static_cast<std::uint32_t>(method),
                 .header = encode(header),
                 .payload = {},
                 .reply_space = {static_cast<std::byte*>(out.data()), out.bytes()}};
    if (method == Method::kInit) {
      call.payload.push_back({static_cast<const std::byte*>(first.data()), first.bytes()});
    }
    return client.call(std::move(call));
  };
  EXPECT_EQ(ask(Method::kInit).status, static_cast<std::uint32_t>(Answer::kDone));

  context.lease = false;
  EXPECT_EQ(ask(Method::kPull).status, kStatusNotHere);
  const auto* const values = static_cast<const float*>(out.data());
  EXPECT_TRUE(std::all_of(values, values + count, [](float value) { return value == 0; }));

  context.lease = true;
  const RpcReply reply = ask(Method::kPull);
  EXPECT_EQ(reply.status, static_cast<std::uint32_t>(Answer::kDone));
  EXPECT_EQ(reply.payload_bytes, out.bytes());
  EXPECT_EQ(std::memcmp(out.data(), first.data(), out.bytes()), 0);
  client.close();
  server.close();
  strands.stop();
}

}  // namespace
}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Calls that succeed: what arrives, in shared memory and through the socket, of many threads and in
// which order.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/rpc.h"

namespace trireme {
namespace {

using testing::answer_turned;
using testing::bytes_of;
using testing::copy_of;
using testing::failure_of;
using testing::Mailbox;
using testing::rpc_bytes;
using testing::rpc_call;
using testing::rpc_client_options;
using testing::rpc_server_options;
using testing::turned;

// Payloads: none, one byte, one below and at the least in place, more than one read, several
// writes.
const std::vector<std::size_t> kSizes{0, 1, 4095, 4096, 16385, 70001, 3'000'017};

enum class Way { kShared, kNoArena, kOtherHost };

class RpcCalls : public ::testing::TestWithParam<Way> {
 protected:
  bool shares() const { return GetParam() == Way::kShared; }
  RpcClientOptions client_options(int port) {
    RpcClientOptions options = rpc_client_options(port, &arena_);
    if (GetParam() == Way::kNoArena) options.arena = nullptr;
    if (GetParam() == Way::kOtherHost) options.host_id = "another host";
    return options;
  }

  RpcArena arena_;
};

INSTANTIATE_TEST_SUITE_P(Ways, RpcCalls,
                         ::testing::Values(Way::kShared, Way::kNoArena, Way::kOtherHost),
                         [](const auto& instance) {
                           switch (instance.param) {
                             case Way::kShared:
                               return "Shared";
                             case Way::kNoArena:
                               return "NoArena";
                             case Way::kOtherHost:
                               return "OtherHost";
                           }
                           return "?";
                         });

TEST_P(RpcCalls, PayloadOfTheArenaComesBackTurned) {
  RpcServer server(rpc_server_options(answer_turned));
  RpcClient client(client_options(server.port()));
  EXPECT_EQ(client.shares_memory(), shares());
  const SharedBuffer memory = arena_.allocate(2 * kSizes.back() + 77);
  for (const std::size_t size : kSizes) {
    const auto sent = rpc_bytes(size, static_cast<std::uint32_t>(size));
    const std::span<std::byte> payload = bytes_of(memory).subspan(13, size);
    const std::span<std::byte> space = bytes_of(memory).subspan(13 + size + 5, size + 3);
    std::copy(sent.begin(), sent.end(), payload.begin());
    std::fill(space.begin(), space.end(), std::byte{0x5a});

    RpcCall call = rpc_call(7);
    call.header = "size " + std::to_string(size);
    call.payload = {payload};
    call.reply_space = space;
    const RpcReply reply = client.call(std::move(call));
    EXPECT_EQ(reply.status, 8U);
    EXPECT_EQ(reply.header, "re: size " + std::to_string(size));
    ASSERT_EQ(reply.payload_bytes, size);
    EXPECT_EQ(copy_of(space.first(size)), turned(sent)) << size;
    EXPECT_EQ(copy_of(space.subspan(size)), std::vector(3, std::byte{0x5a})) << size;
    EXPECT_EQ(copy_of(payload), sent);
  }
}

TEST_P(RpcCalls, PiecesOfAnyMemoryLieOneAfterTheOther) {
  RpcServer server(rpc_server_options(answer_turned));
  RpcClient client(client_options(server.port()));
  const SharedBuffer memory = arena_.allocate(70001);
  std::vector<std::vector<std::byte>> pieces;
  RpcCall call = rpc_call(7);
  std::vector<std::byte> all;
  // More pieces than one system call takes.
  for (std::uint32_t i = 0; i < 150; ++i) {
    pieces.push_back(rpc_bytes(i % 7 == 3 ? 0 : 1 + 331 * (i % 90), i));
    all.insert(all.end(), pieces.back().begin(), pieces.back().end());
  }
  for (const auto& piece : pieces) call.payload.emplace_back(piece);
  const auto shared = rpc_bytes(70001, 4711);
  std::copy(shared.begin(), shared.end(), bytes_of(memory).begin());
  call.payload.emplace_back(bytes_of(memory));
  all.insert(all.end(), shared.begin(), shared.end());
  std::vector<std::byte> space(all.size());
  call.reply_space = space;
  EXPECT_EQ(client.call(std::move(call)).payload_bytes, all.size());
  EXPECT_EQ(space, turned(all));
}

TEST_P(RpcCalls, AreIndependentOfEachOther) {
  // Answered by four threads in whatever order.
  Mailbox<std::optional<RpcRequest>> requests;
  RpcServer server(
      rpc_server_options([&](RpcRequest request) { requests.put(std::move(request)); }));
  std::vector<std::thread> answerers;
  for (int i = 0; i < 4; ++i) {
    answerers.emplace_back([&] {
      while (std::optional<RpcRequest> request = requests.take()) {
        answer_turned(*std::move(request));
      }
    });
  }
  RpcClient client(client_options(server.port()));
  constexpr int kThreads = 5;
  constexpr int kCalls = 60;
  const SharedBuffer memory = arena_.allocate(kThreads * kCalls * 40000);
  std::vector<std::thread> callers;
  std::atomic<int> right{0};
  Mailbox<int> done;
  for (int t = 0; t < kThreads; ++t) {
    callers.emplace_back([&, t] {
      for (int c = 0; c < kCalls; ++c) {
        const int n = t * kCalls + c;
        const auto sent = rpc_bytes(static_cast<std::size_t>(1 + (n * 7919) % 19999),
                                    static_cast<std::uint32_t>(n));
        const auto part = bytes_of(memory).subspan(static_cast<std::size_t>(n) * 40000, 40000);
        std::copy(sent.begin(), sent.end(), part.begin());
        RpcCall call = rpc_call(static_cast<std::uint32_t>(n));
        call.payload = {part.first(sent.size())};
        call.reply_space = part.subspan(20000, sent.size());
        client.call(std::move(call), [&, n, sent, part](const RpcReply& reply) {
          const bool same = reply.error == nullptr &&
                            reply.status == static_cast<std::uint32_t>(n) + 1 &&
                            reply.payload_bytes == sent.size() &&
                            copy_of(part.subspan(20000, sent.size())) == turned(sent);
          right += same ? 1 : 0;
          done.put(n);
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::set<int> seen;
  for (int i = 0; i < kThreads * kCalls; ++i) seen.insert(done.take());
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(kThreads * kCalls));
  EXPECT_EQ(right.load(), kThreads * kCalls);
  for (std::size_t i = 0; i < answerers.size(); ++i) requests.put(std::nullopt);
  for (std::thread& answerer : answerers) answerer.join();
}

TEST_P(RpcCalls, RequestsSayWhereTheirBytesLie) {
  Mailbox<RpcRequest> requests;
  RpcServer server(
      rpc_server_options([&](RpcRequest request) { requests.put(std::move(request)); }));
  RpcClient client(client_options(server.port()));
  const SharedBuffer memory = arena_.allocate(300001);
  RpcCall call = rpc_call(2);
  call.payload = {bytes_of(memory).first(100001)};
  call.reply_space = bytes_of(memory).subspan(200000);
  std::promise<RpcReply> promise;
  client.call(std::move(call), [&](RpcReply reply) { promise.set_value(std::move(reply)); });
  RpcRequest request = requests.take();
  EXPECT_EQ(request.client(), "worker 3 at 127.0.0.1");
  EXPECT_EQ(request.method(), 2U);
  EXPECT_EQ(request.reply_room(), 100001U);
  // The caller sees what is written before the reply exactly when memory is shared, and the other
  // way round.
  request.reply_space(100001)[9] = std::byte{42};
  EXPECT_EQ(bytes_of(memory)[200009] == std::byte{42}, shares());
  bytes_of(memory)[1] = std::byte{43};
  EXPECT_EQ(request.payload()[1] == std::byte{43}, shares());
  EXPECT_EQ(failure_of([&] { request.reply_space(100002); }),
            "ShapeError: a reply of 100002 bytes to method 2 of worker 3 at 127.0.0.1, which has "
            "room for 100001, 1073741824 through the socket");
  // Less than was asked for.
  request.reply_space(10)[9] = std::byte{44};
  request.reply(0, "", 10);
  const RpcReply reply = promise.get_future().get();
  EXPECT_EQ(reply.payload_bytes, 10U);
  EXPECT_EQ(bytes_of(memory)[200009], std::byte{44});
}

TEST(RpcReplies, CannotBeMoreThanWasAskedFor) {
  Mailbox<RpcRequest> requests;
  RpcServer server(
      rpc_server_options([&](RpcRequest request) { requests.put(std::move(request)); }));
  RpcClient client(rpc_client_options(server.port()));
  Mailbox<RpcReply> replies;
  client.call(rpc_call(5), [&](RpcReply reply) { replies.put(std::move(reply)); });
  RpcRequest request = requests.take();
  EXPECT_EQ(failure_of([&] { request.reply(0, "", 1); }).substr(0, 22), "ShapeError: a reply to");
  EXPECT_EQ(
      failure_of([&] { request.reply(0, std::string(kRpcHeaderLimit + 1, 'h')); }).substr(0, 22),
      "ShapeError: a reply to");
  request.reply(9, std::string(kRpcHeaderLimit, 'h'));
  const RpcReply reply = replies.take();
  EXPECT_EQ(reply.status, 9U);
  EXPECT_EQ(reply.header, std::string(kRpcHeaderLimit, 'h'));
}

TEST(RpcReplies, ADroppedRequestIsAbandoned) {
  RpcServer server(rpc_server_options([](const RpcRequest&) {}));
  RpcClient client(rpc_client_options(server.port()));
  EXPECT_EQ(client.call(rpc_call(5)).status, kRpcAbandoned);
  // Also when its taker throws.
  RpcServer thrower(
      rpc_server_options([](const RpcRequest&) { throw ConfigError("no such method"); }));
  RpcClient other(rpc_client_options(thrower.port()));
  EXPECT_EQ(other.call(rpc_call(5)).status, kRpcAbandoned);
  EXPECT_EQ(other.call(rpc_call(6)).status, kRpcAbandoned);
}

TEST(RpcReplies, ADoneMayCallAgain) {
  RpcServer server(rpc_server_options(answer_turned));
  RpcClient client(rpc_client_options(server.port()));
  Mailbox<std::uint32_t> last;
  std::function<void(RpcReply)> again = [&](const RpcReply& reply) {
    if (reply.status < 50) return client.call(rpc_call(reply.status), again);
    last.put(reply.status);
  };
  client.call(rpc_call(0), again);
  EXPECT_EQ(last.take(), 50U);
}

TEST(RpcReplies, ADoneThatThrowsEndsNothing) {
  RpcServer server(rpc_server_options(answer_turned));
  RpcClient client(rpc_client_options(server.port()));
  client.call(rpc_call(0), [](const RpcReply&) { throw ConfigError("a done of this test"); });
  EXPECT_EQ(client.call(rpc_call(1)).status, 2U);
}

TEST(RpcClients, AreToldWhatIsTooLarge) {
  RpcServer server(rpc_server_options(answer_turned));
  RpcClient client(rpc_client_options(server.port()));
  RpcCall call = rpc_call(3);
  call.header.resize(kRpcHeaderLimit + 1);
  EXPECT_EQ(failure_of([&] { client.call(call); }).substr(0, 31),
            "ShapeError: a call of method 3 ");
  call = rpc_call(3);
  std::vector<std::byte> piece(std::size_t{1} << 20);
  call.payload.assign(1025, piece);
  EXPECT_EQ(failure_of([&] { client.call(call); }).substr(0, 31),
            "ShapeError: a call of method 3 ");
  EXPECT_EQ(client.call(rpc_call(1)).status, 2U);
}

TEST(RpcClients, SeveralShareAnArenaThatMayGo) {
  RpcServer first(rpc_server_options(answer_turned));
  RpcServer second(rpc_server_options(answer_turned));
  auto arena = std::make_unique<RpcArena>();
  RpcClient one(rpc_client_options(first.port(), arena.get()));
  RpcClient two(rpc_client_options(second.port(), arena.get()));
  // Memory that comes and goes, at the same address, with other bytes.
  for (std::uint32_t round = 0; round < 20; ++round) {
    const SharedBuffer memory = arena->allocate(50021);
    const auto sent = rpc_bytes(50021, round);
    std::copy(sent.begin(), sent.end(), bytes_of(memory).begin());
    for (RpcClient* client : {&one, &two}) {
      RpcCall call = rpc_call(round);
      std::vector<std::byte> space(50021);
      call.payload = {bytes_of(memory)};
      call.reply_space = space;
      EXPECT_EQ(client->call(std::move(call)).payload_bytes, 50021U);
      EXPECT_EQ(space, turned(sent)) << round;
    }
  }
  SharedBuffer last = arena->allocate(9001);
  arena.reset();
  RpcCall call = rpc_call(0);
  call.payload = {bytes_of(last)};
  call.reply_space = bytes_of(last);
  EXPECT_EQ(one.call(std::move(call)).payload_bytes, 9001U);
  EXPECT_EQ(bytes_of(last)[9000], std::byte{0xff});
}

// A client whose server does not read, so that frames wait in the client: they leave by priority.
TEST(RpcClients, HigherPrioritiesLeaveFirst) {
  Mailbox<std::uint32_t> order;
  Mailbox<int> go;
  std::atomic<bool> first{true};
  RpcServer server(rpc_server_options([&](RpcRequest request) {
    order.put(request.method());
    // Keeps the server from reading until all calls were made.
    if (first.exchange(false)) go.take();
    request.reply(0);
  }));
  RpcClient client(rpc_client_options(server.port()));
  Mailbox<int> replies;
  const auto done = [&](const RpcReply& reply) { replies.put(reply.error == nullptr ? 1 : 0); };
  client.call(rpc_call(100), done);
  EXPECT_EQ(order.take(), 100U);
  // More than the sockets' buffers hold: it has begun to leave, and nothing overtakes it.
  const std::vector<std::byte> large(64 << 20);
  RpcCall call = rpc_call(101);
  call.payload = {large};
  client.call(std::move(call), done);
  for (std::uint32_t i = 0; i < 9; ++i) {
    RpcCall small = rpc_call(i);
    small.priority = static_cast<int>(i % 3) - 1;
    client.call(std::move(small), done);
  }
  go.put(1);
  std::vector<std::uint32_t> seen;
  for (int i = 0; i < 10; ++i) seen.push_back(order.take());
  EXPECT_EQ(seen, (std::vector<std::uint32_t>{101, 2, 5, 8, 1, 4, 7, 0, 3, 6}));
  for (int i = 0; i < 11; ++i) EXPECT_EQ(replies.take(), 1);
}

}  // namespace
}  // namespace trireme

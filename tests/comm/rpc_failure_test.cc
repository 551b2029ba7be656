// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Servers and clients that die, are late, or go on purpose, with calls under way.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/network_namespaces.h"
#include "tests/support/ranks.h"
#include "tests/support/rpc.h"
#include "trireme/base/log.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::answer_turned;
using testing::bytes_of;
using testing::copy_of;
using testing::error_text;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::kLossTime;
using testing::kRpcSecret;
using testing::kTestDeadline;
using testing::listen_on_free_port;
using testing::Listener;
using testing::Mailbox;
using testing::NetworkNamespaces;
using testing::RankProcess;
using testing::rpc_bytes;
using testing::rpc_call;
using testing::rpc_client_options;
using testing::rpc_server_options;
using ::testing::StartsWith;

// error_text() of a reply's error.
std::string error_of(const RpcReply& reply) {
  return failure_of([&] {
    if (reply.error != nullptr) std::rethrow_exception(reply.error);
  });
}

std::string lost(int port, int method) {
  return "PeerLostError -1: worker 3 lost the server at 127.0.0.1:" + std::to_string(port) +
         " and gets no reply to method " + std::to_string(method) + ": ";
}

// A server in a process of its own. body is called with its options, which lack on_request.
RankProcess start_server(const Listener& listener,
                         const std::function<std::string(RpcServerOptions)>& body) {
  RankProcess process(0, [&] {
    RpcServerOptions options;
    options.listen_fd = listener.fd;
    options.secret = kRpcSecret;
    return body(options);
  });
  ::close(listener.fd);
  return process;
}

[[noreturn]] void wait_for_the_end() {
  for (;;) pause();
}

TEST(RpcServerKilled, EndsAllCallsUnderWayAtOnce) {
  const Listener listener = listen_on_free_port();
  RankProcess process = start_server(listener, [](RpcServerOptions options) -> std::string {
    std::atomic<int> requests{0};
    Mailbox<RpcRequest> held;
    options.on_request = [&](RpcRequest request) {
      held.put(std::move(request));
      if (++requests < 3) return;
      RankProcess::say("three");
      wait_for_the_end();  // and reads nothing more
    };
    const RpcServer server(std::move(options));
    wait_for_the_end();
  });
  RpcArena arena;
  RpcClient client(rpc_client_options(listener.port, &arena));
  EXPECT_TRUE(client.shares_memory());
  Mailbox<std::string> errors;
  const auto done = [&](const RpcReply& reply) { errors.put(error_of(reply)); };
  const SharedBuffer memory = arena.allocate(100001);
  for (std::uint32_t i = 0; i < 3; ++i) {
    RpcCall call = rpc_call(i);
    call.payload = {bytes_of(memory)};
    call.reply_space = bytes_of(memory);
    client.call(std::move(call), done);
  }
  ASSERT_TRUE(process.wait_to_hear("three"));
  // One that has begun to leave, and one behind it.
  const std::vector<std::byte> large(64 << 20);
  RpcCall call = rpc_call(3);
  call.payload = {large};
  client.call(std::move(call), done);
  client.call(rpc_call(4), done);
  EXPECT_TRUE(client.connected());

  process.signal(SIGKILL);
  for (int i = 0; i < 5; ++i) EXPECT_THAT(errors.take(), StartsWith(lost(listener.port, i)));
  EXPECT_FALSE(client.connected());
  EXPECT_THAT(failure_of([&] { client.call(rpc_call(9)); }), StartsWith(lost(listener.port, 9)));
  EXPECT_EQ(process.result(), "signal 9");
}

TEST(RpcServerKilled, LeavesTheOtherServersCallsAlone) {
  const Listener listener = listen_on_free_port();
  RankProcess process = start_server(listener, [](RpcServerOptions options) -> std::string {
    Mailbox<RpcRequest> held;
    options.on_request = [&](RpcRequest request) {
      held.put(std::move(request));
      RankProcess::say("one");
    };
    const RpcServer server(std::move(options));
    wait_for_the_end();
  });
  Mailbox<RpcRequest> requests;
  RpcServer other(
      rpc_server_options([&](RpcRequest request) { requests.put(std::move(request)); }));
  RpcClient to_it(rpc_client_options(listener.port));
  RpcClient to_other(rpc_client_options(other.port()));
  Mailbox<std::string> ends;
  const auto done = [&](const RpcReply& reply) { ends.put(error_of(reply)); };
  to_other.call(rpc_call(1), done);
  to_it.call(rpc_call(2), done);
  ASSERT_TRUE(process.wait_to_hear("one"));
  RpcRequest request = requests.take();
  process.signal(SIGKILL);
  EXPECT_THAT(ends.take(), StartsWith(lost(listener.port, 2)));
  request.reply(0);
  EXPECT_EQ(ends.take(), "no error");
  EXPECT_TRUE(to_other.connected());
}

TEST(RpcServerStopped, IsNotLost) {
  const Listener listener = listen_on_free_port();
  RankProcess process = start_server(listener, [](RpcServerOptions options) -> std::string {
    options.on_request = answer_turned;
    const RpcServer server(std::move(options));
    wait_for_the_end();
  });
  RpcClient client(rpc_client_options(listener.port));
  EXPECT_EQ(client.call(rpc_call(1)).status, 2U);
  process.signal(SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(process.pid(), &status, WUNTRACED), process.pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  RpcCall call = rpc_call(2);
  // Longer than a silent host is borne.
  call.timeout = std::chrono::milliseconds(5500);
  EXPECT_EQ(failure_of([&] { client.call(call); }),
            "TimeoutError: the server at 127.0.0.1:" + std::to_string(listener.port) +
                " did not reply to method 2 of worker 3 within 5.5 s; it is alive, but busy or "
                "stuck: see its log");
  process.signal(SIGCONT);
  EXPECT_EQ(client.call(rpc_call(3)).status, 4U);
}

// The client's process: one call that names shared memory, and the test's word for it.
RankProcess start_client(int port, std::size_t payload, std::size_t room, bool blocks_its_thread) {
  return {1, [=]() -> std::string {
            RpcArena arena;
            RpcClient client(rpc_client_options(port, &arena));
            if (!client.shares_memory()) return "no shared memory";
            const SharedBuffer memory = arena.allocate(payload + room + 1);
            const auto sent = rpc_bytes(payload, 5);
            std::copy(sent.begin(), sent.end(), bytes_of(memory).begin());
            RpcCall call = rpc_call(5);
            call.payload = {bytes_of(memory).first(payload)};
            std::vector<std::byte> own(room);
            call.reply_space =
                blocks_its_thread ? std::span(own) : bytes_of(memory).subspan(payload, room);
            client.call(std::move(call), [](const RpcReply&) {});
            if (blocks_its_thread) {
              client.call(rpc_call(6), [](const RpcReply&) {
                RankProcess::say("blocked");
                wait_for_the_end();
              });
            }
            wait_for_the_end();
          }};
}

struct ServerWithMail {
  explicit ServerWithMail(int listen_fd) {
    RpcServerOptions options =
        rpc_server_options([this](RpcRequest request) { requests.put(std::move(request)); });
    options.on_closed = [this](std::uint64_t connection) { closed.put(connection); };
    options.listen_fd = listen_fd;
    server = std::make_unique<RpcServer>(std::move(options));
  }
  Mailbox<RpcRequest> requests;
  Mailbox<std::uint64_t> closed;
  std::unique_ptr<RpcServer> server;
};

void expect_it_serves(ServerWithMail& mail) {
  RpcClient client(rpc_client_options(mail.server->port()));
  Mailbox<std::string> ends;
  client.call(rpc_call(70), [&](const RpcReply& reply) { ends.put(error_of(reply)); });
  mail.requests.take().reply(0);
  EXPECT_EQ(ends.take(), "no error");
}

TEST(RpcClientKilled, LeavesItsMemoryToTheServer) {
  const Listener listener = listen_on_free_port();
  RankProcess process = start_client(listener.port, 1'000'003, 2'000'003, false);
  ServerWithMail mail(listener.fd);
  RpcRequest request = mail.requests.take();
  const std::span<std::byte> space = request.reply_space(2'000'003);
  std::fill(space.begin(), space.begin() + 1'000'000, std::byte{1});
  process.signal(SIGKILL);
  EXPECT_EQ(process.result(), "signal 9");
  EXPECT_EQ(mail.closed.take(), request.connection());
  // In the middle of writing.
  std::fill(space.begin() + 1'000'000, space.end(), std::byte{2});
  EXPECT_EQ(copy_of(request.payload()), rpc_bytes(1'000'003, 5));
  request.reply(0, "", space.size());
  expect_it_serves(mail);
}

TEST(RpcClientKilled, InTheMiddleOfAReply) {
  const Listener listener = listen_on_free_port();
  RankProcess process = start_client(listener.port, 5000, 64 << 20, true);
  ServerWithMail mail(listener.fd);
  RpcRequest large = mail.requests.take();
  ASSERT_EQ(large.method(), 5U);
  mail.requests.take().reply(0);
  // From now on it reads nothing.
  ASSERT_TRUE(process.wait_to_hear("blocked"));
  large.reply_space(64 << 20);
  const std::uint64_t connection = large.connection();
  large.reply(0, "", 64 << 20);
  process.signal(SIGKILL);
  EXPECT_EQ(mail.closed.take(), connection);
  expect_it_serves(mail);
}

TEST(RpcTimeouts, NameTheMethodAndEndNothingElse) {
  Mailbox<RpcRequest> requests;
  RpcServer server(
      rpc_server_options([&](RpcRequest request) { requests.put(std::move(request)); }));
  RpcClient client(rpc_client_options(server.port()));
  std::vector<std::byte> space(70001, std::byte{7});
  RpcCall call = rpc_call(11);
  call.reply_space = space;
  call.timeout = std::chrono::milliseconds(30);
  EXPECT_THAT(failure_of([&] { client.call(call); }),
              AllOf(StartsWith("TimeoutError: "), HasSubstr("method 11 of worker 3 within 0.0 s")));
  // The reply that comes too late goes nowhere.
  RpcRequest request = requests.take();
  std::ranges::fill(request.reply_space(70001), std::byte{8});
  request.reply(0, "", 70001);
  Mailbox<std::string> ends;
  client.call(rpc_call(12), [&](const RpcReply& reply) { ends.put(error_of(reply)); });
  requests.take().reply(0);
  EXPECT_EQ(ends.take(), "no error");
  EXPECT_EQ(space, std::vector<std::byte>(70001, std::byte{7}));
}

// The deadline passes when a part of the call has left, and while another waits behind it.
TEST(RpcTimeouts, GiveTheCallersMemoryBack) {
  Mailbox<int> go;
  Mailbox<std::pair<std::uint32_t, std::vector<std::byte>>> arrived;
  RpcServer server(rpc_server_options([&](RpcRequest request) {
    arrived.put({request.method(), copy_of(request.payload())});
    if (request.method() == 20) go.take();
    request.reply(0);
  }));
  RpcClient client(rpc_client_options(server.port()));
  Mailbox<std::string> ends;
  const auto done = [&](const RpcReply& reply) { ends.put(error_of(reply)); };
  client.call(rpc_call(20), done);
  EXPECT_EQ(arrived.take().first, 20U);
  const auto sent = rpc_bytes(40'000'003, 21);
  {
    std::vector<std::byte> large = sent;
    std::vector<std::byte> behind = rpc_bytes(5003, 22);
    for (auto* payload : {&large, &behind}) {
      RpcCall call = rpc_call(payload == &large ? 21 : 22);
      call.payload = {std::span(*payload).first(1003), std::span(*payload).subspan(1003)};
      call.timeout = std::chrono::milliseconds(30);
      client.call(std::move(call), done);
    }
    EXPECT_THAT(ends.take(), AllOf(StartsWith("TimeoutError"), HasSubstr("method 21")));
    EXPECT_THAT(ends.take(), AllOf(StartsWith("TimeoutError"), HasSubstr("method 22")));
    std::ranges::fill(large, std::byte{0});
  }
  client.call(rpc_call(23), done);
  go.put(1);
  auto [method, bytes] = arrived.take();
  EXPECT_EQ(method, 21U);
  EXPECT_EQ(bytes, sent);
  EXPECT_EQ(arrived.take().first, 23U);
  EXPECT_EQ(ends.take(), "no error");
  EXPECT_EQ(ends.take(), "no error");
}

TEST(RpcClose, OfTheClientEndsItsCalls) {
  ServerWithMail mail(-1);
  RpcClient client(rpc_client_options(mail.server->port()));
  Mailbox<std::string> ends;
  for (std::uint32_t i = 0; i < 3; ++i) {
    client.call(rpc_call(i), [&](const RpcReply& reply) { ends.put(error_of(reply)); });
  }
  std::vector<RpcRequest> requests;
  for (int i = 0; i < 3; ++i) requests.push_back(mail.requests.take());
  client.close();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ends.take(), lost(mail.server->port(), i) + "the client was closed");
  }
  client.close();
  EXPECT_EQ(mail.closed.take(), requests[2].connection());
  requests[2].reply(0);
  expect_it_serves(mail);
}

TEST(RpcClose, MayComeFromADone) {
  RpcServer server(rpc_server_options(answer_turned));
  RpcClient client(rpc_client_options(server.port()));
  Mailbox<int> closed;
  client.call(rpc_call(1), [&](const RpcReply&) {
    client.close();
    closed.put(1);
  });
  closed.take();
  client.close();
  EXPECT_FALSE(client.connected());
}

TEST(RpcClose, OfTheServerEndsItsClientsCalls) {
  ServerWithMail mail(-1);
  const int port = mail.server->port();
  RpcClient client(rpc_client_options(port));
  Mailbox<std::string> ends;
  client.call(rpc_call(4), [&](const RpcReply& reply) { ends.put(error_of(reply)); });
  RpcRequest request = mail.requests.take();
  mail.server->close();
  mail.server->close();
  EXPECT_EQ(ends.take(), lost(port, 4) + "the server was closed");
  EXPECT_EQ(mail.closed.take(), request.connection());
  mail.server.reset();
  // The request outlives it.
  request.reply_space(0);
  request.reply(0);
}

TEST(RpcConnect, WaitsForTheServer) {
  const Listener listener = listen_on_free_port();
  ::close(listener.fd);
  RpcClientOptions options = rpc_client_options(listener.port);
  options.connect_timeout = std::chrono::milliseconds(50);
  EXPECT_THAT(failure_of([&] { RpcClient client(options); }),
              AllOf(StartsWith("TimeoutError: the server at 127.0.0.1:"),
                    HasSubstr("did not answer worker 3 within 0.1 s (Connection refused)")));
}

TEST(RpcConnect, WantsTheJobsSecret) {
  set_log_level(LogLevel::kOff);
  RpcServer server(rpc_server_options(answer_turned));
  RpcClientOptions options = rpc_client_options(server.port());
  options.secret = "another";
  EXPECT_THAT(failure_of([&] { RpcClient client(options); }),
              AllOf(StartsWith("ConfigError: the server at 127.0.0.1:"),
                    HasSubstr("has another secret than worker 3")));
  options = rpc_client_options(server.port());
  EXPECT_EQ(RpcClient(options).call(rpc_call(1)).status, 2U);
  set_log_level(LogLevel::kInfo);

  options.address = "10.1.2.3";
  options.secret = "";
  EXPECT_THAT(failure_of([&] { RpcClient client(options); }),
              StartsWith("ConfigError: the server at 10.1.2.3 needs a secret"));
  RpcServerOptions open = rpc_server_options(answer_turned);
  open.address = "0.0.0.0";
  open.secret = "";
  EXPECT_THAT(failure_of([&] { RpcServer other(open); }),
              StartsWith("ConfigError: the server at 0.0.0.0 needs a secret"));
}

TEST(RpcConnect, ToAPortInUseOrNoPort) {
  RpcServer server(rpc_server_options(answer_turned));
  RpcServerOptions same = rpc_server_options(answer_turned);
  same.port = server.port();
  EXPECT_THAT(failure_of([&] { RpcServer other(same); }),
              StartsWith("ConfigError: port " + std::to_string(server.port())));
  same.listen_fd = ::dup(STDERR_FILENO);
  EXPECT_THAT(failure_of([&] { RpcServer other(same); }),
              HasSubstr("given to the server, is not a listening socket"));
}

// Nobody's connection ends: there is only silence. Both sides see it within five seconds.
TEST(RpcSilence, EndsTheConnectionOnBothSides) {
  NetworkNamespaces net(2);
  if (!net.unavailable().empty()) GTEST_SKIP() << net.unavailable();
  RankProcess server(0, [&]() -> std::string {
    net.enter(0);
    Mailbox<std::uint64_t> closed;
    Mailbox<RpcRequest> held;
    RpcServerOptions options = rpc_server_options([&](RpcRequest request) {
      held.put(std::move(request));
      RankProcess::say("one");
    });
    options.address = net.address(0);
    options.port = 4800;
    options.on_closed = [&](std::uint64_t connection) { closed.put(connection); };
    const RpcServer rpc(std::move(options));
    RankProcess::say("listens");
    closed.take();
    return "lost its client";
  });
  ASSERT_TRUE(server.wait_to_hear("listens"));
  RankProcess client(1, [&]() -> std::string {
    net.enter(1);
    RpcArena arena;
    RpcClientOptions options = rpc_client_options(4800, &arena);
    options.address = net.address(0);
    RpcClient rpc(options);
    if (rpc.shares_memory()) return "shares memory with another host";
    return failure_of([&] { rpc.call(rpc_call(3)); });
  });
  ASSERT_TRUE(server.wait_to_hear("one"));
  const Deadline deadline = Deadline::after(kLossTime);
  net.cut(1);
  EXPECT_THAT(client.result(deadline),
              AllOf(StartsWith("PeerLostError"), HasSubstr("no reply to method 3")));
  EXPECT_EQ(server.result(deadline), "lost its client");
}

}  // namespace
}  // namespace trireme

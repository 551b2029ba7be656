// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Strangers, and peers that know the secret and yet break the protocol: they lose their connection,
// with a reason, and nobody else notices.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/rpc.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/comm/rpc/arena_regions.h"
#include "trireme/comm/rpc/greeting.h"
#include "trireme/comm/rpc/inbox.h"
#include "trireme/comm/rpc/wire.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using testing::answer_turned;
using testing::bytes_of;
using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::kRpcSecret;
using testing::kTestDeadline;
using testing::Mailbox;
using testing::rpc_call;
using testing::rpc_client_options;
using testing::rpc_server_options;
using ::testing::StartsWith;

// The headers of the frames that come, until the connection ends.
std::vector<std::string> rest_of(const FileDescriptor& fd) {
  struct : FrameSink {
    std::byte* place_for(const RpcHead&) override { return nullptr; }
    void deliver(const RpcHead&, std::string header) override { headers.push_back(header); }
    std::vector<std::string> headers;
  } sink;
  Inbox inbox;
  pollfd ready{fd.get(), POLLIN, 0};
  while (poll(&ready, 1, static_cast<int>(kTestDeadline.count())) == 1) {
    if (inbox.read_from(fd, sink) == IoStatus::kClosed) return sink.headers;
  }
  return {"the connection stays open"};
}

void send_all(const FileDescriptor& fd, std::string bytes) {
  const Deadline deadline = Deadline::after(kTestDeadline);
  while (!bytes.empty() && !deadline.expired()) {
    if (write_available(fd, bytes) == IoStatus::kClosed) return;
  }
}

// A server, a client of it that behaves, and clients that do not.
class RpcMisuse : public ::testing::Test {
 protected:
  RpcMisuse() { set_log_level(LogLevel::kOff); }
  ~RpcMisuse() override {
    EXPECT_EQ(good_.call(rpc_call(1)).status, 2U);
    set_log_level(LogLevel::kInfo);
  }

  // What the server says to a client that sends these bytes.
  std::vector<std::string> answer_to(const std::string& bytes) {
    const Greeted greeted = greet_server(rpc_client_options(server_.port(), &arena_));
    EXPECT_TRUE(greeted.shares_memory);
    send_all(greeted.fd, bytes);
    return rest_of(greeted.fd);
  }

  static std::string frame(RpcHead head, const std::string& header = {}) {
    head.header_bytes = static_cast<std::uint32_t>(header.size());
    return encode_head(head) + header;
  }
  static std::string notice_frame(const MemoryNotice& notice) {
    FieldWriter writer;
    encode_notice(writer, notice);
    RpcHead head;
    head.kind = RpcFrameKind::kMemory;
    return frame(head, writer.bytes());
  }
  MemoryNotice notice() const {
    return *arena_.regions()->notice(arena_.regions()->locate(memory_.data(), 1).memory);
  }
  static RpcHead request() {
    RpcHead head;
    head.call = 1;
    return head;
  }

  RpcServer server_{rpc_server_options(answer_turned)};
  RpcClient good_{rpc_client_options(server_.port())};
  RpcArena arena_;
  SharedBuffer memory_ = arena_.allocate(70001);
};

TEST_F(RpcMisuse, OfHeadsEndsTheConnection) {
  RpcHead head = request();
  head.kind = RpcFrameKind{9};
  EXPECT_THAT(answer_to(frame(head)), ElementsAre("a frame of unknown kind 9"));
  head = request();
  head.payload_bytes = kRpcInlinePayloadLimit + 1;
  EXPECT_THAT(answer_to(frame(head)),
              ElementsAre("a payload of 1073741825 bytes, 1073741824 are allowed through the "
                          "socket"));
  head = request();
  head.kind = RpcFrameKind::kReply;
  EXPECT_THAT(answer_to(frame(head)), ElementsAre("a frame of kind 2 out of turn"));
  head.kind = RpcFrameKind::kRefusal;
  EXPECT_THAT(answer_to(frame(head, "because")), ElementsAre("a frame of kind 4 out of turn"));
}

TEST_F(RpcMisuse, OfMemoryEndsTheConnection) {
  const std::uint64_t known = notice().number;
  const auto with_payload = [&](RpcPlace place, std::uint64_t bytes) {
    RpcHead head = request();
    head.payload = place;
    head.payload_bytes = bytes;
    return answer_to(notice_frame(notice()) + frame(head));
  };
  const auto with_room = [&](RpcPlace place, std::uint64_t bytes) {
    RpcHead head = request();
    head.room = place;
    head.room_bytes = bytes;
    return answer_to(notice_frame(notice()) + frame(head));
  };
  for (const auto& send : {std::function(with_payload), std::function(with_room)}) {
    EXPECT_THAT(send({77, 0}, 1), ElementsAre("unknown memory 77"));
    EXPECT_THAT(send({known, 70001}, 1), ElementsAre(HasSubstr("1 bytes at 70001 of memory")));
    EXPECT_THAT(send({known, 0}, 70002), ElementsAre(HasSubstr("70002 bytes at 0 of memory")));
    EXPECT_THAT(send({known, 1}, UINT64_MAX), ElementsAre(HasSubstr("bytes at 1 of memory")));
    EXPECT_THAT(send({known, UINT64_MAX}, 2), ElementsAre(HasSubstr("2 bytes at 1844")));
  }
}

TEST_F(RpcMisuse, OfNoticesEndsTheConnection) {
  EXPECT_THAT(answer_to(notice_frame(notice()) + notice_frame(notice())),
              ElementsAre(HasSubstr("twice")));
  MemoryNotice wrong = notice();
  wrong.token[0] = static_cast<char>(wrong.token[0] ^ 1);
  EXPECT_THAT(answer_to(notice_frame(wrong)), ElementsAre(HasSubstr("is another memory")));
  wrong = notice();
  wrong.bytes -= 1;
  EXPECT_THAT(answer_to(notice_frame(wrong)), ElementsAre(HasSubstr("is not 70000 bytes")));
  wrong = notice();
  wrong.number = 0;
  EXPECT_THAT(answer_to(notice_frame(wrong)), ElementsAre(HasSubstr("memory 0 of")));
  RpcHead head;
  head.kind = RpcFrameKind::kMemory;
  EXPECT_THAT(answer_to(frame(head, "short")), ElementsAre(HasSubstr("a field of 8 bytes")));
  std::string many;
  for (std::uint64_t i = 0; i < 1025; ++i) {
    MemoryNotice another = notice();
    another.number += i;
    many += notice_frame(another);
  }
  EXPECT_THAT(answer_to(many), ElementsAre("more than 1024 memories"));
}

// The memory is read again at each use, so a request may name it after others were freed.
TEST_F(RpcMisuse, DoesNotCountMemoryThatWasFreed) {
  RpcClient client(rpc_client_options(server_.port(), &arena_));
  for (int i = 0; i < 1100; ++i) {
    const SharedBuffer passing = arena_.allocate(4096);
    RpcCall call = rpc_call(1);
    call.payload = {bytes_of(passing)};
    call.reply_space = bytes_of(passing);
    ASSERT_EQ(client.call(std::move(call)).payload_bytes, 4096U);
  }
}

TEST_F(RpcMisuse, OfAClientThatHangsUpInTheMiddleOfAFrame) {
  const std::string whole = frame(request(), "a header");
  for (std::size_t cut = 0; cut < whole.size(); cut += 13) {
    const Greeted greeted = greet_server(rpc_client_options(server_.port()));
    send_all(greeted.fd, whole.substr(0, cut));
  }
  RpcHead head = request();
  head.payload_bytes = 1 << 20;
  const Greeted greeted = greet_server(rpc_client_options(server_.port()));
  send_all(greeted.fd, frame(head) + std::string(70001, 'p'));
}

// Connects and says these bytes before any greeting.
std::string answer_to_a_stranger(int port, std::string bytes) {
  std::string why;
  const auto fd = connect_to("127.0.0.1", port, Deadline::after(kTestDeadline), why);
  EXPECT_TRUE(fd.has_value()) << why;
  send_all(*fd, std::move(bytes));
  std::string answer;
  pollfd ready{fd->get(), POLLIN, 0};
  while (poll(&ready, 1, static_cast<int>(kTestDeadline.count())) == 1) {
    if (read_available(*fd, answer) == IoStatus::kClosed) return answer;
  }
  return "the connection stays open";
}

TEST_F(RpcMisuse, OfStrangersEndsWithThem) {
  EXPECT_EQ(answer_to_a_stranger(server_.port(), "GET / HTTP/1.1\r\n\r\n"), "");
  EXPECT_EQ(answer_to_a_stranger(server_.port(), frame(request())), "");
  const std::string hello =
      encode_frame(FrameType::kHello, encode_hello({kNoRank, 0, make_nonce()}));
  const std::string proof = encode_frame(FrameType::kProof, std::string(kProofBytes, 'p'));
  EXPECT_EQ(answer_to_a_stranger(server_.port(), hello + proof), "");
  // One who says nothing is not waited for.
  EXPECT_EQ(answer_to_a_stranger(server_.port(), ""), "");
}

std::size_t descriptors() {
  const std::filesystem::directory_iterator folder("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(folder), end(folder)));
}

TEST_F(RpcMisuse, OfManyStrangersKeepsNobodyOut) {
  EXPECT_EQ(good_.call(rpc_call(1)).status, 2U);
  const std::size_t before = descriptors();
  std::vector<FileDescriptor> strangers;
  std::string why;
  for (int i = 0; i < 150; ++i) {
    auto fd = connect_to("127.0.0.1", server_.port(), Deadline::after(kTestDeadline), why);
    ASSERT_TRUE(fd.has_value()) << why;
    strangers.push_back(*std::move(fd));
  }
  RpcClient another(rpc_client_options(server_.port()));
  EXPECT_EQ(another.call(rpc_call(4)).status, 5U);
  // The strangers' ends, three of the other client, and at this server (which is in this process)
  // those of the other client and of whom it bears.
  EXPECT_LE(descriptors(), before + 150 + 3 + 1 + kMaxStrangers);
}

// Whoever knows the secret hears why it is not served.
TEST_F(RpcMisuse, OfVersionsIsRefusedWithAReason) {
  const auto refusal = [&](const Hello& hello) {
    std::string why;
    const auto fd = connect_to("127.0.0.1", server_.port(), Deadline::after(kTestDeadline), why);
    FrameDecoder decoder(kStrangerFrameLimit);
    const auto next = [&]() -> Frame {
      for (;;) {
        if (auto frame = decoder.next()) return *frame;
        pollfd ready{fd->get(), POLLIN, 0};
        std::string bytes;
        if (poll(&ready, 1, static_cast<int>(kTestDeadline.count())) != 1) return {};
        if (read_available(*fd, bytes) == IoStatus::kClosed && bytes.empty()) return {};
        decoder.feed(bytes);
      }
    };
    const std::string encoded = encode_hello(hello);
    send_all(*fd, encode_frame(FrameType::kHello, encoded));
    const std::string nonce = next().payload.substr(0, kNonceBytes);
    const std::string proof = make_proof(Prover::kMember, kRpcSecret, encoded, nonce);
    send_all(*fd, encode_frame(FrameType::kProof, proof));
    EXPECT_EQ(next().type, FrameType::kTrusted);
    send_all(*fd, encode_frame(FrameType::kMember, "whatever that version says"));
    const Frame verdict = next();
    EXPECT_EQ(verdict.type, FrameType::kRefused);
    return verdict.payload;
  };
  EXPECT_THAT(refusal({kNoRank, 0, make_nonce(), kRpcVersion + 1}),
              HasSubstr("speaks version 2 of the protocol, the server version 1"));
  EXPECT_EQ(refusal({3, 4, make_nonce()}), "rank 3 looks for rank 0 at the port of a server");
}

// A server that greets as it should and then says these bytes, once it has heard a request; and
// more of them when it is told to.
class FalseServer {
 public:
  FalseServer() : listener_(listen_on("127.0.0.1", 0)) {}
  int port() const { return local_port(listener_); }
  void tell(std::string more) { more_.put(std::move(more)); }
  void answer(const std::string& bytes, bool waits_for_more = false) {
    bool exhausted = false;
    std::optional<FileDescriptor> fd;
    const Deadline deadline = Deadline::after(kTestDeadline);
    while (!fd && !deadline.expired()) fd = accept_from(listener_, exhausted);
    Greeting greeting(kRpcSecret, "another host");
    std::string out;
    while (!greeting.welcomed() && !deadline.expired()) {
      std::string in;
      read_available(*fd, in);
      greeting.handle(in, out);
      write_available(*fd, out);
    }
    send_all(*fd, out);
    std::string in;
    while (in.size() < kRpcHeadBytes && !deadline.expired()) read_available(*fd, in);
    send_all(*fd, bytes);
    if (waits_for_more) send_all(*fd, more_.take());
    while (read_available(*fd, in) == IoStatus::kOk && !deadline.expired()) in.clear();
  }

 private:
  FileDescriptor listener_;
  Mailbox<std::string> more_;
};

// What a call ends with.
std::string end_of_call(const std::string& answer, std::size_t room) {
  FalseServer server;
  std::thread thread([&] { server.answer(answer); });
  std::string end;
  {
    RpcClient client(rpc_client_options(server.port()));
    std::vector<std::byte> space(room);
    RpcCall call = rpc_call(6);
    call.reply_space = space;
    end = failure_of([&] { client.call(call); });
  }
  thread.join();
  return end;
}

TEST(RpcFalseServer, EndsTheCalls) {
  set_log_level(LogLevel::kOff);
  const auto frame = [](auto change, const std::string& more = {}) {
    RpcHead head;
    head.kind = RpcFrameKind::kReply;
    head.call = 1;
    change(head);
    return encode_head(head) + more;
  };
  const auto lost = [](const std::string& why) {
    return AllOf(StartsWith("PeerLostError -1: worker 3 lost the server at 127.0.0.1:"),
                 HasSubstr("no reply to method 6: " + why));
  };
  EXPECT_EQ(end_of_call(frame([](RpcHead&) {}), 10), "no error");
  EXPECT_THAT(end_of_call(frame([](RpcHead& head) { head.call = 2; }), 10),
              lost("a reply to call 2, which was never made"));
  EXPECT_THAT(
      end_of_call(frame([](RpcHead& head) { head.payload_bytes = 11; }, std::string(11, 'p')), 10),
      lost("a reply of 11 bytes where there is room for 10"));
  EXPECT_THAT(end_of_call(frame([](RpcHead& head) {
                            head.payload = {5, 0};
                          }),
                          10),
              lost("a reply in other memory than that of the call"));
  EXPECT_THAT(end_of_call(frame([](RpcHead& head) { head.kind = RpcFrameKind::kRequest; }), 10),
              lost("a frame of kind 1 out of turn"));
  EXPECT_THAT(end_of_call(frame([](RpcHead& head) { head.kind = RpcFrameKind{77}; }), 10),
              lost("a frame of unknown kind 77"));
  EXPECT_THAT(end_of_call(frame(
                              [](RpcHead& head) {
                                head.kind = RpcFrameKind::kRefusal;
                                head.header_bytes = 7;
                              },
                              "because"),
                          10),
              lost("because"));
  set_log_level(LogLevel::kInfo);
}

// The caller may use its memory again after a reply, so a reply to half a request is none.
TEST(RpcFalseServer, CannotReplyToHalfARequest) {
  set_log_level(LogLevel::kOff);
  RpcHead head;
  head.kind = RpcFrameKind::kReply;
  head.call = 1;
  FalseServer server;
  // Reads a head's worth, answers, and then reads on.
  std::thread thread([&] { server.answer(encode_head(head)); });
  {
    RpcClient client(rpc_client_options(server.port()));
    const std::vector<std::byte> large(64 << 20);
    RpcCall call = rpc_call(6);
    call.payload = {large};
    EXPECT_THAT(failure_of([&] { client.call(call); }),
                HasSubstr("it replied before it had the whole request"));
  }
  thread.join();
  set_log_level(LogLevel::kInfo);
}

// The deadline passes when half of the reply's payload is there.
TEST(RpcFalseServer, IsTooLateInTheMiddleOfAReply) {
  RpcHead head;
  head.kind = RpcFrameKind::kReply;
  head.call = 1;
  head.payload_bytes = 100;
  FalseServer server;
  std::thread thread([&] { server.answer(encode_head(head) + std::string(50, 'p'), true); });
  {
    RpcClient client(rpc_client_options(server.port()));
    std::vector<std::byte> space(100);
    RpcCall call = rpc_call(6);
    call.reply_space = space;
    call.timeout = std::chrono::milliseconds(100);
    EXPECT_THAT(failure_of([&] { client.call(call); }), StartsWith("TimeoutError: "));
    const std::vector<std::byte> mine(100, std::byte{7});
    space = mine;
    Mailbox<std::uint32_t> ends;
    client.call(rpc_call(7), [&](const RpcReply& late) { ends.put(late.status); });
    head.call = 2;
    head.code = 8;
    head.payload_bytes = 0;
    server.tell(std::string(50, 'p') + encode_head(head));
    EXPECT_EQ(ends.take(), 8U);
    EXPECT_EQ(space, mine);
  }
  thread.join();
}

}  // namespace
}  // namespace trireme

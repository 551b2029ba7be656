// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The parts of a connection, without the rest: heads, frames in pieces, what leaves when.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/rpc.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/comm/rpc/inbox.h"
#include "trireme/comm/rpc/outbox.h"
#include "trireme/comm/rpc/wire.h"

namespace trireme {
namespace {

using testing::copy_of;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::rpc_bytes;
using ::testing::StartsWith;

RpcHead a_request() {
  RpcHead head;
  head.kind = RpcFrameKind::kRequest;
  head.code = 0x01020304;
  head.call = 0x1112131415161718;
  head.header_bytes = 0x21;
  head.payload_bytes = 0x3132333435;
  head.payload = {0x41, 0x5152535455565758};
  head.room_bytes = 0x61626364656667;
  head.room = {0x71, 0x8182838485868788};
  return head;
}

TEST(RpcHeads, ComeBackAsTheyWere) {
  const std::string bytes = encode_head(a_request());
  EXPECT_EQ(bytes.size(), kRpcHeadBytes);
  EXPECT_EQ(decode_head(bytes), a_request());
  // Little-endian, at fixed places: a version of the protocol for good.
  EXPECT_EQ(bytes.substr(0, 8), std::string("\1\0\0\0\4\3\2\1", 8));
  EXPECT_EQ(bytes.substr(60), std::string("\x88\x87\x86\x85\x84\x83\x82\x81", 8));
}

TEST(RpcHeads, AreRefusedOverTheLimits) {
  const auto refusal = [](auto change) {
    RpcHead head = a_request();
    change(head);
    return failure_of([&] { decode_head(encode_head(head)); });
  };
  EXPECT_EQ(refusal([](RpcHead&) {}), "no error");
  EXPECT_THAT(refusal([](RpcHead& head) { head.kind = RpcFrameKind{0}; }),
              HasSubstr("unknown kind 0"));
  EXPECT_THAT(refusal([](RpcHead& head) { head.kind = RpcFrameKind{5}; }),
              HasSubstr("unknown kind 5"));
  EXPECT_THAT(refusal([](RpcHead& head) { head.header_bytes = kRpcHeaderLimit + 1; }),
              HasSubstr("a header of 1048577 bytes, 1048576 are allowed"));
  EXPECT_THAT(refusal([](RpcHead& head) {
                head.payload = {};
                head.payload_bytes = kRpcInlinePayloadLimit + 1;
              }),
              HasSubstr("a payload of 1073741825 bytes, 1073741824 are allowed"));
  EXPECT_THAT(refusal([](RpcHead& head) { head.kind = RpcFrameKind::kMemory; }),
              HasSubstr("in a frame that has none"));
  EXPECT_THAT(refusal([](RpcHead& head) { head.kind = RpcFrameKind::kReply; }),
              StartsWith("CommError: room for"));
  EXPECT_EQ(refusal([](RpcHead& head) {
              head.kind = RpcFrameKind::kReply;
              head.room_bytes = 0;
              head.room = {};
            }),
            "no error");
}

// Keeps what arrives.
struct Kept : FrameSink {
  std::byte* place_for(const RpcHead& head) override {
    payload.assign(head.inline_bytes(), std::byte{0});
    return payload.data();
  }
  void deliver(const RpcHead& head, std::string header) override {
    frames.emplace_back(head.call, std::move(header), std::exchange(payload, {}));
  }
  std::vector<std::byte> payload;
  std::vector<std::tuple<std::uint64_t, std::string, std::vector<std::byte>>> frames;
};

OutgoingFrame frame_of(std::uint64_t call, const std::string& header,
                       std::span<const std::byte> payload) {
  RpcHead head;
  head.kind = RpcFrameKind::kReply;
  head.call = call;
  head.header_bytes = static_cast<std::uint32_t>(header.size());
  head.payload_bytes = payload.size();
  OutgoingFrame frame;
  frame.front = encode_head(head) + header;
  if (!payload.empty()) frame.payload = {payload};
  return frame;
}

std::string text_of(const OutgoingFrame& frame) {
  std::string text = frame.front;
  for (const auto piece : frame.payload) {
    text.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  }
  return text;
}

// With and without a header and a payload, which may be longer than a read.
struct Frames {
  Frames() {
    for (std::size_t i = 0; i < 12; ++i) {
      headers.push_back(i % 3 == 0 ? "" : std::string(i * i, static_cast<char>('a' + i)));
      payloads.push_back(rpc_bytes(i % 4 == 0 ? 0 : i * i * i * 37, static_cast<std::uint32_t>(i)));
      text += text_of(frame_of(i, headers[i], payloads[i]));
    }
  }
  void expect_in(const Kept& kept) const {
    ASSERT_EQ(kept.frames.size(), headers.size());
    for (std::size_t i = 0; i < headers.size(); ++i) {
      EXPECT_EQ(kept.frames[i], std::tuple(i, headers[i], payloads[i])) << i;
    }
  }
  std::vector<std::string> headers;
  std::vector<std::vector<std::byte>> payloads;
  std::string text;
};

TEST(RpcInbox, PutsFramesTogetherFromAnyPieces) {
  const Frames sent;
  for (const std::size_t piece : {1, 2, 67, 68, 69, 1000, 16383, 16384, 1 << 20}) {
    Inbox inbox;
    Kept kept;
    for (std::size_t at = 0; at < sent.text.size(); at += piece) {
      inbox.feed(std::string_view(sent.text).substr(at, piece), kept);
    }
    sent.expect_in(kept);
  }
}

// Two ends of a stream.
struct Stream {
  Stream() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
      throw std::runtime_error("no socket pair");
    }
    near = FileDescriptor(ends[0]);
    far = FileDescriptor(ends[1]);
  }
  FileDescriptor near;
  FileDescriptor far;
};

TEST(RpcInbox, ReadsASocket) {
  const Frames sent;
  for (const std::size_t piece : {1, 68, 20000, 1 << 20}) {
    Stream stream;
    Inbox inbox;
    Kept kept;
    std::string_view rest = sent.text;
    while (!rest.empty()) {
      const ssize_t n = ::send(stream.near.get(), rest.data(), std::min(rest.size(), piece), 0);
      if (n > 0) rest.remove_prefix(static_cast<std::size_t>(n));
      ASSERT_EQ(inbox.read_from(stream.far, kept), IoStatus::kOk);
    }
    while (kept.frames.size() < sent.headers.size()) {
      ASSERT_EQ(inbox.read_from(stream.far, kept), IoStatus::kOk);
    }
    sent.expect_in(kept);
    stream.near = FileDescriptor();
    EXPECT_EQ(inbox.read_from(stream.far, kept), IoStatus::kClosed);
  }
}

TEST(RpcInbox, DropsWhatNobodyWants) {
  const Frames sent;
  Inbox inbox;
  struct : Kept {
    std::byte* place_for(const RpcHead& head) override {
      return head.call == 5 ? nullptr : Kept::place_for(head);
    }
  } kept;
  const auto cut = static_cast<std::size_t>(sent.text.size() - 3000);
  inbox.feed(std::string_view(sent.text).substr(0, cut), kept);
  ASSERT_EQ(kept.frames.size(), 11U);
  EXPECT_TRUE(std::get<2>(kept.frames[5]).empty());
  EXPECT_EQ(std::get<2>(kept.frames[6]), sent.payloads[6]);
  // The last frame's memory goes in its middle.
  inbox.drop_payload();
  kept.payload = {};
  inbox.feed(std::string_view(sent.text).substr(cut), kept);
  ASSERT_EQ(kept.frames.size(), 12U);
  EXPECT_EQ(std::get<1>(kept.frames[11]), sent.headers[11]);
}

// An outbox whose stream is full until read_all().
class FullOutbox : public ::testing::Test {
 protected:
  FullOutbox() : outbox_(stream_.near.get(), [this](bool writable) { watched_ = writable; }) {
    put(1000, blocker_, 0);
    outbox_.send();
    EXPECT_TRUE(watched_);
  }
  Outbox::Ticket put(std::uint64_t call, std::span<const std::byte> payload, int priority) {
    OutgoingFrame frame = frame_of(call, std::to_string(call), payload);
    frame.priority = priority;
    return outbox_.put(std::move(frame));
  }
  // The calls of what leaves, in order.
  std::vector<std::uint64_t> read_all() {
    Inbox inbox;
    do {
      outbox_.send(true);
      EXPECT_EQ(inbox.read_from(stream_.far, kept_), IoStatus::kOk);
    } while (watched_);
    EXPECT_EQ(inbox.read_from(stream_.far, kept_), IoStatus::kOk);
    std::vector<std::uint64_t> calls;
    for (const auto& frame : kept_.frames) calls.push_back(std::get<0>(frame));
    return calls;
  }

  Stream stream_;
  std::atomic<bool> watched_ = false;
  std::vector<std::byte> blocker_ = rpc_bytes(8'000'001, 1);
  Outbox outbox_;
  Kept kept_;
};

TEST_F(FullOutbox, LetsHigherPrioritiesOutFirst) {
  std::vector<std::vector<std::byte>> payloads;
  for (std::uint32_t i = 0; i < 9; ++i) payloads.push_back(rpc_bytes(100 * i, i));
  for (std::uint32_t i = 0; i < 9; ++i) {
    put(i, payloads[i], static_cast<int>(i % 3) - 1);
    outbox_.send();
  }
  EXPECT_EQ(read_all(), (std::vector<std::uint64_t>{1000, 2, 5, 8, 1, 4, 7, 0, 3, 6}));
  EXPECT_EQ(std::get<2>(kept_.frames[0]), blocker_);
  EXPECT_EQ(std::get<2>(kept_.frames[3]), payloads[8]);
}

TEST_F(FullOutbox, GivesMemoryBack) {
  auto first = rpc_bytes(4'000'003, 3);
  auto second = rpc_bytes(5, 4);
  const Outbox::Ticket blocker{0, 0};
  const Outbox::Ticket queued = put(1, second, 0);
  put(2, second, 0);
  EXPECT_TRUE(outbox_.withdraw(queued));
  EXPECT_FALSE(outbox_.withdraw(queued));
  const auto original = blocker_;
  EXPECT_TRUE(outbox_.withdraw(blocker));
  std::ranges::fill(blocker_, std::byte{0});
  EXPECT_EQ(read_all(), (std::vector<std::uint64_t>{1000, 2}));
  EXPECT_EQ(std::get<2>(kept_.frames[0]), original);
  EXPECT_FALSE(outbox_.withdraw(blocker));
}

TEST_F(FullOutbox, SendsNothingOnceItStopped) {
  outbox_.stop();
  outbox_.stop();
  put(1, blocker_, 0);
  outbox_.send();
  outbox_.send(true);
  Inbox inbox;
  while (inbox.read_from(stream_.far, kept_) == IoStatus::kOk) {
    char byte = 0;
    if (::recv(stream_.far.get(), &byte, 1, MSG_PEEK) < 0) break;
  }
  EXPECT_TRUE(kept_.frames.empty());
}

TEST(RpcOutbox, TakesFramesOfManyThreads) {
  Stream stream;
  std::atomic<bool> watched = false;
  Outbox outbox(stream.near.get(), [&](bool writable) { watched = writable; });
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kFrames = 300;
  const auto payload_of = [](std::uint64_t call) {
    return rpc_bytes(call * 7919 % 30011, static_cast<std::uint32_t>(call));
  };
  std::vector<std::vector<std::byte>> payloads;
  for (std::uint64_t call = 0; call < kThreads * kFrames; ++call) {
    payloads.push_back(payload_of(call));
  }
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < kFrames; ++i) {
        const std::uint64_t call = t * kFrames + i;
        outbox.put(frame_of(call, std::to_string(call), payloads[call]));
        outbox.send();
      }
    });
  }
  Inbox inbox;
  Kept kept;
  const Deadline deadline = Deadline::after(testing::kTestDeadline);
  while (kept.frames.size() < kThreads * kFrames && !deadline.expired()) {
    ASSERT_EQ(inbox.read_from(stream.far, kept), IoStatus::kOk);
    if (watched) outbox.send(true);
    std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(kept.frames.size(), kThreads * kFrames);
  std::map<std::uint64_t, std::uint64_t> last;
  for (const auto& [call, header, payload] : kept.frames) {
    EXPECT_EQ(header, std::to_string(call));
    EXPECT_EQ(payload, payloads[call]);
    // Those of one thread in their order.
    const auto [before, first] = last.try_emplace(call / kFrames, call);
    EXPECT_TRUE(first || before->second < call);
    before->second = call;
  }
}

}  // namespace
}  // namespace trireme

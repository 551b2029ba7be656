// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Valid inputs of the fuzz targets, mutated at random from a fixed seed. tests/fuzz/ searches
// further; this part runs with every test.

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/rpc_targets.h"
#include "tests/fuzz/targets.h"
#include "trireme/base/log.h"

namespace trireme {
namespace {

using Random = std::mt19937_64;
using Target = void (*)(std::string_view);

// No errors of strangers in the log of the tests.
class FuzzTest : public ::testing::Test {
 protected:
  void SetUp() override { set_log_level(LogLevel::kOff); }
  void TearDown() override { set_log_level(LogLevel::kInfo); }
};

std::size_t below(Random& random, std::size_t end) { return end == 0 ? 0 : random() % end; }

void mutate(std::string& bytes, const std::vector<std::string>& others, Random& random) {
  const std::size_t at = below(random, bytes.size());
  switch (random() % 7) {
    case 0:
      if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(random, 8)));
      break;
    case 1:
      bytes.insert(at, 1 + below(random, 9), static_cast<char>(random()));
      break;
    case 2:
      bytes.erase(at, 1 + below(random, 9));
      break;
    case 3:
      bytes.resize(at);
      break;
    case 4:
      // A length or a count that promises far more, or one more, than there is.
      for (std::size_t i = at; i < std::min(at + 4, bytes.size()); ++i) {
        bytes[i] = random() % 2 == 0 ? '\xff' : '\x7f';
      }
      break;
    case 5:
      bytes += bytes.substr(at);
      break;
    default:
      bytes = bytes.substr(0, at) + others[below(random, others.size())];
  }
}

void survives(Target target, const std::vector<std::string>& valid, int times) {
  Random random(20240607);
  for (const std::string& bytes : valid) ASSERT_NO_THROW(target(bytes));
  for (int i = 0; i < times; ++i) {
    std::string bytes = valid[below(random, valid.size())];
    for (std::size_t m = 1 + below(random, 4); m > 0; --m) mutate(bytes, valid, random);
    ASSERT_NO_THROW(target(bytes)) << "mutation " << i;
  }
}

std::string a_member() {
  Member member;
  member.rank = 3;
  member.host_id = "host";
  member.host_name = "name";
  member.ip = "10.0.0.3";
  member.process_space = "space";
  member.pid = 4711;
  member.last_words = "/proc/4711/fd/5";
  member.last_words_token = 0x123456789abcdef0;
  member.fingerprint = {{"threads", "1"}, {"vectors", "avx512"}, {"", ""}};
  FieldWriter writer;
  detail::encode_member(writer, member);
  return writer.bytes();
}

std::string a_failure() {
  return detail::encode_failure({Failure::Kind::kPeerLost, 2, "rank 2 on host is lost"});
}

std::string a_hello() { return encode_hello({3, 8, std::string(kNonceBytes, 'n')}); }

// Of the control plane, as its target expects them: length less one, then bytes of which the first
// says from whom.
std::string from_members(const std::string& bytes) {
  return std::string(1, static_cast<char>(bytes.size() - 1)) + bytes;
}

TEST_F(FuzzTest, Frames) {
  const std::string two =
      encode_frame(FrameType::kHello, a_hello()) + encode_frame(FrameType::kMember, a_member());
  survives(fuzz::frames, {"\x05" + two, "\xff" + two + two, std::string("\0", 1) + two}, 20000);
}

TEST_F(FuzzTest, Fields) {
  const std::string data = FieldWriter().u8(1).u32(2).u64(3).text("text").raw("raw").bytes();
  survives(fuzz::fields, {std::string("\0\1\2\3\xff\4\4\4\4\4\4\4\4\4\4\4", 16) + data}, 20000);
}

TEST_F(FuzzTest, Hello) { survives(fuzz::hello, {a_hello()}, 20000); }
TEST_F(FuzzTest, Member) { survives(fuzz::member, {a_member(), a_member() + a_member()}, 20000); }
TEST_F(FuzzTest, Failure) { survives(fuzz::failure, {a_failure()}, 20000); }

// A whole admission; one with a raw hello; one that skips the proof.
TEST_F(FuzzTest, Admission) {
  const std::string member = FieldWriter().u64(60000).raw(a_member()).bytes();
  const std::string hello = encode_frame(FrameType::kHello, a_hello());
  const std::string raw = std::string(1, '\0') + static_cast<char>(hello.size()) + hello;
  survives(fuzz::admission, {"\1\3\x08\2\3" + member, raw + "\2\3" + member, "\1\3\x08\3" + member},
           5000);
}

TEST_F(FuzzTest, ControlPlane) {
  const std::string put =
      encode_frame(FrameType::kPut, FieldWriter().text("key").text("value").bytes());
  const std::string get = encode_frame(FrameType::kGet, FieldWriter().text("key").bytes());
  const auto goodbye = [](std::uint32_t rank) {
    return encode_frame(FrameType::kGoodbye, FieldWriter().u32(rank).bytes());
  };
  const std::string ask = encode_frame(FrameType::kAsk, FieldWriter().text("1.0").bytes());
  const std::string failed = encode_frame(FrameType::kFailure, a_failure());
  survives(fuzz::control_plane,
           {from_members(put + get + goodbye(1) + goodbye(2)), from_members(get + ask + failed),
            from_members(ask + get) + from_members(put) + from_members(goodbye(2))},
           1000);
}

std::string an_rpc_frame(RpcHead head, const std::string& header, const std::string& payload) {
  head.header_bytes = static_cast<std::uint32_t>(header.size());
  if (!head.payload) head.payload_bytes = payload.size();
  return encode_head(head) + header + payload;
}

TEST_F(FuzzTest, RpcFrames) {
  RpcHead reply;
  reply.kind = RpcFrameKind::kReply;
  RpcHead refusal;
  refusal.kind = RpcFrameKind::kRefusal;
  const std::string request = an_rpc_frame({}, "a header", std::string(300, 'p'));
  const std::string others =
      an_rpc_frame(reply, {}, "payload") + an_rpc_frame(refusal, "because", {});
  survives(fuzz::rpc_frames,
           {"\x05" + request + others, "\xff" + others + request, std::string("\0", 1) + request},
           20000);
}

TEST_F(FuzzTest, RpcNoticesAndIntroductions) {
  const MemoryNotice notice{5, 4711, 6, 70001, std::string(kMemoryTokenBytes, 't')};
  FieldWriter writer;
  encode_notice(writer, notice);
  survives(fuzz::rpc_notice, {writer.bytes()}, 20000);
  survives(fuzz::rpc_introduction,
           {encode_introduction({"worker 3", "host", notice}),
            encode_introduction({"worker 3", "host", std::nullopt})},
           20000);
}

// A notice and a request that names all of its memory; raw requests between; places outside.
TEST_F(FuzzTest, RpcServer) {
  const std::string request = an_rpc_frame({}, "a header", std::string(100, 'p'));
  const std::string raw = std::string(1, '\0') + static_cast<char>(request.size()) + request;
  const std::string named{2, 1, 0, static_cast<char>(200), 1, 0, static_cast<char>(200)};
  survives(
      fuzz::rpc_server,
      {"\1" + named + raw, raw + raw + "\1" + named + named, named, "\1\1", "\1" + raw + named},
      5000);
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Bytes that are no messages, and messages that make no sense, to functions and to a server that
// trains.

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/client.h"

namespace trireme::ps {
namespace {

// Bytes as they come, or those of a message in which some have changed or the end is missing.
std::string malformed(const std::string& valid) {
  auto bytes = *rc::gen::oneOf(rc::gen::container<std::string>(rc::gen::arbitrary<char>()),
                               rc::gen::just(valid));
  const auto changes = *rc::gen::inRange(0, 4);
  for (int i = 0; i < changes && !bytes.empty(); ++i) {
    bytes[*rc::gen::inRange<std::size_t>(0, bytes.size())] = *rc::gen::arbitrary<char>();
  }
  bytes.resize(*rc::gen::inRange<std::size_t>(0, bytes.size() + 1));
  return bytes;
}

// A ProtocolError, or a message that encodes again.
template <class Message>
void decode_malformed(const Message& valid) {
  const std::string bytes = malformed(encode(valid));
  try {
    encode(decode<Message>(bytes));
  } catch (const ProtocolError&) {
  }
}

RC_GTEST_PROP(Malformed, HeadersAreErrors, ()) {
  View view{.term = 3,
            .servers = {{5, 1, "10.0.0.1", 4711}},
            .workers = {{7, 2}},
            .ranges = {{5, 6, 2, true, 8, 3, false}},
            .failure = {}};
  ReplicaState state{
      .initialized = true, .applied = 9, .updates = 8, .step = 4, .members = {{7, 2, 4}}};
  decode_malformed(Registration{true, 3, "10.0.0.1", 99});
  decode_malformed(Registered{4, true, 5000});
  decode_malformed(Watch{4, 3});
  decode_malformed(Ready{4, 3, 2});
  decode_malformed(
      Announcement{.view = view, .finished = false, .layout = mixed_layout().encode()});
  decode_malformed(RangeRequest{.range = 2,
                                .term = 3,
                                .asker = {7, 4},
                                .codec = "int8",

                                .extras = {1, 2},
                                .lists = {},
                                .file = {},
                                .digest = {}});
  decode_malformed(RangeReply{.term = 3, .extras = {1}, .block_sums = {2, 3}, .text = "why"});
  decode_malformed(
      Replication{.range = 2, .term = 3, .op = {Op::Kind::kUpdate, {{7, 2, 5}}}, .state = state});
  decode_malformed(Replicated{3, 9});
  decode_malformed(
      ServerReport{.updates = 1, .staleness = {1, 2}, .waited_for_us = {0.5}, .awaited = {1}});
}

RC_GTEST_PROP(Malformed, LayoutsAreErrors, ()) {
  const std::string bytes = malformed(mixed_layout().encode());
  try {
    JobLayout::decode(bytes);
  } catch (const ProtocolError&) {
  }
}

TEST(Layouts, AreTheSameWhenTheyComeBack) {
  const JobLayout layout = mixed_layout();
  EXPECT_EQ(layout_difference(layout, JobLayout::decode(layout.encode())), "");
  EXPECT_EQ(JobLayout::decode(layout.encode()).encode(), layout.encode());
}

// Whatever a stranger with the secret sends, the others train on.
TEST(Malformed, RequestsDoNotDisturbAServer) {
  Job job({.servers = 1, .workers = 1});
  const auto workers = job.join(mixed_layout());
  Worker& worker = *workers[0];
  begin(worker);
  RpcClient client(
      {.port = job.server(0).port(), .secret = {}, .name = "a stranger", .host_id = {}});
  const Term term = job.coordinator().view().term;
  const auto status_of = [&](Method method, const std::string& header, std::size_t payload_bytes) {
    const std::vector<std::byte> payload(payload_bytes, std::byte{0xff});
    RpcCall call{.method = static_cast<std::uint32_t>(method),
                 .header = header,
                 .payload = {},
                 .reply_space = {}};
    if (!payload.empty()) call.payload.push_back(payload);
    return client.call(std::move(call)).status;
  };
  const WorkerId id = job.coordinator().view().workers[0].id;
  const auto request = [&](std::uint32_t range, const std::string& codec) {
    return encode(RangeRequest{.range = range,
                               .term = term,
                               .asker = {id, 0},
                               .codec = codec,

                               .extras = {},
                               .lists = {},
                               .file = {},
                               .digest = {}});
  };
  for (int method = 0; method < 40; ++method) {
    if (static_cast<Method>(method) == Method::kReport) continue;
    EXPECT_EQ(status_of(static_cast<Method>(method), "no header", 5), kStatusRefused) << method;
  }
  EXPECT_EQ(status_of(Method::kPush, request(99, ""), 4), kStatusNotHere);
  EXPECT_EQ(status_of(Method::kPush, request(0, ""), 4 * 3 * kShardBlock - 4), kStatusRefused);
  EXPECT_EQ(status_of(Method::kPush, request(0, "gzip"), 4 * 3 * kShardBlock), kStatusRefused);
  EXPECT_EQ(status_of(Method::kPush, request(0, "topk(7)"), 4 * 3 * kShardBlock), kStatusRefused);
  EXPECT_EQ(status_of(Method::kPull, request(0, ""), 0), kStatusRefused);   // no room
  EXPECT_EQ(status_of(Method::kPush, request(5, ""), 24), kStatusRefused);  // no rows
  EXPECT_EQ(status_of(Method::kPush, request(5, ""), 1000), kStatusRefused);
  Job other({.servers = 1, .workers = 1});
  const auto undisturbed = other.join(mixed_layout());
  begin(*undisturbed[0]);
  EXPECT_TRUE(train(worker, {}) == train(*undisturbed[0], {}));
}

}  // namespace
}  // namespace trireme::ps

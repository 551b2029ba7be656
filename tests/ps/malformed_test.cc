// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages that make no sense, to a server that trains.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/client.h"

namespace trireme::ps {
namespace {

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

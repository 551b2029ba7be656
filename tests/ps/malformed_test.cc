// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages that make no sense, to a server that trains.

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "trireme/base/deadline.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/ps/dense_codec.h"

namespace trireme::ps {
namespace {

constexpr std::uint32_t kSlice = 5;  // a range of mixed_layout(); range 0 is dense
constexpr std::size_t kRangeBytes = 4 * 3 * kShardBlock;

// Who has the job's secret and no place in it. Asks in the name of its only worker.
class Stranger {
 public:
  explicit Stranger(Job& job)
      : client_({.port = job.server(0).port(), .secret = {}, .name = "a stranger", .host_id = {}}),
        term_(job.coordinator().view().term),
        worker_(job.coordinator().view().workers[0].id) {}

  std::uint32_t send(Method method, const std::string& header, std::size_t payload_bytes) {
    const std::vector<std::byte> payload(payload_bytes, std::byte{0xff});
    RpcCall call{.method = static_cast<std::uint32_t>(method),
                 .header = header,
                 .payload = {},
                 .reply_space = {},
                 .timeout = std::chrono::seconds(20)};
    if (!payload.empty()) call.payload.push_back(payload);
    return client_.call(std::move(call)).status;
  }
  std::uint32_t ask(Method method, std::uint32_t range, std::size_t payload_bytes,
                    const std::string& codec = "", const std::string& lists = "") {
    return send(method,
                encode(RangeRequest{.range = range,
                                    .term = term_,
                                    .asker = {worker_, 0},
                                    .codec = codec,
                                    .extras = {},
                                    .lists = lists,
                                    .file = {},
                                    .digest = {}}),
                payload_bytes);
  }
  // A server hears from the coordinator which ranges it has; until then it knows none of them.
  void wait_until_known(std::uint32_t range) {
    const Deadline deadline = Deadline::after(std::chrono::seconds(20));
    while (!deadline.expired() && ask(Method::kInit, range, 24) == kStatusNotHere) {
      std::this_thread::yield();
    }
  }
  std::uint32_t replicate(Method method, std::uint32_t range) {
    const Replication header{.range = range,
                             .term = term_,
                             .position = 1,
                             .op = {Op::Kind::kUpdate, {{worker_, 0, 1}}},
                             .state = {}};
    return send(method, encode(header), 24);
  }

 private:
  RpcClient client_;
  Term term_;
  WorkerId worker_;
};

// What training gives where nobody disturbs it.
Values undisturbed() {
  Job job({.servers = 1, .workers = 1});
  const auto workers = job.join(mixed_layout());
  begin(*workers[0]);
  return train(*workers[0], {});
}

// Whatever a stranger with the secret sends, the others train on.
TEST(Malformed, RequestsDoNotDisturbAServer) {
  Job job({.servers = 1, .workers = 1});
  const auto workers = job.join(mixed_layout());
  begin(*workers[0]);
  Stranger stranger(job);
  for (int method = 0; method < 40; ++method) {
    if (static_cast<Method>(method) == Method::kReport) continue;
    EXPECT_EQ(stranger.send(static_cast<Method>(method), "no header", 5), kStatusRefused) << method;
  }
  EXPECT_EQ(stranger.ask(Method::kPush, 99, 4), kStatusNotHere);
  EXPECT_EQ(stranger.ask(Method::kPush, 0, kRangeBytes - 4), kStatusRefused);
  EXPECT_EQ(stranger.ask(Method::kPush, 0, kRangeBytes, "gzip"), kStatusRefused);
  EXPECT_EQ(stranger.ask(Method::kPush, 0, kRangeBytes, "topk(7)"), kStatusRefused);
  const std::size_t encoded_bytes = encoded_dense_bytes("topk(0.3)", 3 * kShardBlock);
  EXPECT_EQ(stranger.ask(Method::kPush, 0, encoded_bytes, "topk(0.3)"), kStatusRefused);
  EXPECT_EQ(stranger.ask(Method::kPull, 0, 0), kStatusRefused);      // no room
  EXPECT_EQ(stranger.ask(Method::kSnapshot, 0, 0), kStatusRefused);  // no room
  EXPECT_EQ(stranger.ask(Method::kPush, kSlice, 24), kStatusRefused);
  EXPECT_EQ(stranger.ask(Method::kPush, kSlice, 1000), kStatusRefused);
  EXPECT_EQ(stranger.ask(Method::kPush, kSlice, 8, "", "no lists"), kStatusRefused);
  // It is no backup of these.
  EXPECT_EQ(stranger.replicate(Method::kReplicate, 0), kStatusOk);
  EXPECT_EQ(stranger.replicate(Method::kTakeState, kSlice), kStatusOk);
  EXPECT_TRUE(train(*workers[0], {}) == undisturbed());
}

TEST(Malformed, FirstValuesDoNotDisturbAServer) {
  Job job({.servers = 1, .workers = 1});
  const auto workers = job.join(mixed_layout());
  Stranger stranger(job);
  for (const std::uint32_t range : {0U, kSlice}) stranger.wait_until_known(range);
  EXPECT_EQ(stranger.ask(Method::kInit, 0, 24), kStatusRefused);
  EXPECT_EQ(stranger.ask(Method::kInit, 0, kRangeBytes + 4), kStatusRefused);
  EXPECT_EQ(stranger.ask(Method::kInit, kSlice, 8), kStatusRefused);
  EXPECT_EQ(stranger.ask(Method::kInit, kSlice, 24), kStatusRefused);
  begin(*workers[0]);
  EXPECT_TRUE(train(*workers[0], {}) == undisturbed());
}

}  // namespace
}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The end of a job: how it reaches its servers, and Worker::wait_for_others_to_leave().

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/ps/job.h"
#include "trireme/base/error.h"
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

// As a program does that hosts a job: the last server's end closes it, and so does its owner.
TEST(CoordinatorEnd, ManyThreadsCloseItAtOnce) {
  for (int round = 0; round < 100; ++round) {
    Coordinator coordinator({});
    std::barrier start(3);
    std::vector<std::jthread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        start.arrive_and_wait();
        coordinator.close();
      });
    }
  }
}

TEST(LastWorker, IsAloneWhenTheOthersHaveLeftOrAreGone) {
  Job job({.servers = 1, .workers = 3});
  std::atomic<int> left = 0;
  job.run(small_layout(), [&](Worker& worker) {
    if (worker.rank() == 1) {
      worker.wait_for_others_to_leave();
      EXPECT_EQ(left, 2);
      return;
    }
    ++left;  // and then this one leaves
  });
}

TEST(LastWorker, NamesThoseWhoStay) {
  Job job({.servers = 1, .workers = 2});
  std::unique_ptr<Worker> other;
  std::thread joins(
      [&] { other = std::make_unique<Worker>(job.worker_options(1), small_layout()); });
  WorkerOptions options = job.worker_options(0);
  options.timeout = std::chrono::milliseconds(200);
  Worker worker(options, small_layout());
  joins.join();
  EXPECT_THAT([&] { worker.wait_for_others_to_leave(); },
              ::testing::ThrowsMessage<TimeoutError>(::testing::HasSubstr("workers 0, 1")));
}

}  // namespace
}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Whose a place in a job is, and what becomes of a job whose places are empty.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "trireme/base/error.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/ps/messages.h"

namespace trireme::ps {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// A process that has registered and then says nothing more, as one that is stopped: its connection
// stays.
class Silent {
 public:
  Silent(int port, const Registration& registration) : client_(options(port)) {
    EXPECT_EQ(client_
                  .call({.method = static_cast<std::uint32_t>(Method::kRegister),
                         .header = encode(registration),
                         .payload = {},
                         .reply_space = {}})
                  .status,
              kStatusOk);
  }

 private:
  static RpcClientOptions options(int port) {
    RpcClientOptions options;
    options.port = port;
    options.name = "silent";
    return options;
  }
  RpcClient client_;
};

TEST(Places, AServerThatLivesKeepsItsPlace) {
  Job job({.servers = 2, .workers = 1});
  const auto workers = job.join(mixed_layout());
  begin(*workers[0]);
  const View before = job.coordinator().view();
  EXPECT_THAT(
      [&] { const Server server({.coordinator_port = job.coordinator().port(), .index = 1}); },
      ThrowsMessage<ConfigError>(HasSubstr("server 1 at 127.0.0.1 is in the job")));
  EXPECT_EQ(job.coordinator().view().servers, before.servers);
  EXPECT_EQ(job.coordinator().view().term, before.term);
}

TEST(Places, AWorkerThatLivesKeepsItsPlace) {
  Job job({.servers = 1, .workers = 2});
  const auto workers = job.join(mixed_layout());
  begin(*workers[0]);
  const View before = job.coordinator().view();
  EXPECT_THAT([&] { const Worker worker(job.worker_options(1), mixed_layout()); },
              ThrowsMessage<ConfigError>(HasSubstr("worker 1 at 127.0.0.1 is in the job")));
  EXPECT_EQ(job.coordinator().view().workers, before.workers);
}

// Its connection is open still, so only the heartbeat tells.
TEST(Places, ASilentServersPlaceIsGivenAfterTheHeartbeat) {
  Coordinator coordinator({.heartbeat = std::chrono::seconds(2)});
  const Silent silent(coordinator.port(), {.is_server = true, .address = "127.0.0.1", .port = 1});
  Server server({.coordinator_port = coordinator.port()});
  Worker worker({.coordinator_port = coordinator.port()}, mixed_layout());
  begin(worker);
  EXPECT_EQ(coordinator.view().servers.at(0).port, server.port());
  worker.leave();
  EXPECT_TRUE(coordinator.wait_for(std::chrono::seconds(30)));
}

TEST(Places, ASilentServersPlaceIsNotGivenBefore) {
  Coordinator coordinator({.heartbeat = std::chrono::minutes(5)});
  const Silent silent(coordinator.port(), {.is_server = true, .address = "127.0.0.1", .port = 1});
  EXPECT_THAT(
      [&] {
        const Server server({.coordinator_port = coordinator.port(),
                             .join_timeout = std::chrono::milliseconds(200)});
      },
      ThrowsMessage<TimeoutError>(AllOf(HasSubstr("cannot join within 200 ms"),
                                        HasSubstr("silent at 127.0.0.1 is in the job"))));
}

// One has done its work, and the other has not and does not come back.
TEST(Places, AJobWithoutWorkersEndsWithTheNamesOfThoseThatAreGone) {
  Coordinator coordinator({.workers = 2, .return_timeout = std::chrono::milliseconds(100)});
  Server server({.coordinator_port = coordinator.port()});
  std::unique_ptr<Worker> other;
  std::thread joins([&] {
    other = std::make_unique<Worker>(
        WorkerOptions{.coordinator_port = coordinator.port(), .rank = 1}, mixed_layout());
  });
  Worker worker({.coordinator_port = coordinator.port()}, mixed_layout());
  joins.join();
  worker.leave();
  EXPECT_FALSE(coordinator.wait_for(std::chrono::milliseconds(1)));
  other.reset();
  EXPECT_THAT([&] { coordinator.wait_for(std::chrono::seconds(30)); },
              ThrowsMessage<CommError>(HasSubstr("no worker is left: worker 1 is gone")));
  EXPECT_THAT([&] { server.wait(); },
              ThrowsMessage<CommError>(HasSubstr("no worker is left: worker 1 is gone")));
}

TEST(Places, AWorkerThatComesBackInTimeDoesTheWork) {
  Job job({.servers = 1, .workers = 1});
  std::optional<Worker> worker;
  worker.emplace(job.worker_options(0), mixed_layout());
  begin(*worker);
  train(*worker, {.steps = 1});
  worker.reset();
  ASSERT_TRUE(job.await_workers(0));
  worker.emplace(job.worker_options(0), mixed_layout());
  EXPECT_TRUE(worker->came_later());
  train(*worker, {.steps = 2});
  worker->leave();
  EXPECT_TRUE(job.coordinator().wait_for(std::chrono::seconds(30)));
}

// Nobody else gives them: the message says what is missing, and who would have brought it.
TEST(Places, FirstValuesThatWereNeverGivenAreMissed) {
  for (const Consistency& consistency : {Consistency::sync(), Consistency::async()}) {
    JobLayout layout = mixed_layout();
    layout.consistency = consistency;
    Job job({.servers = 1, .workers = 2, .timeout = std::chrono::seconds(2)});
    auto workers = job.join(layout);
    workers[0].reset();
    ASSERT_TRUE(job.await_workers(1));
    EXPECT_THAT([&] { workers[1]->wait(workers[1]->pull()); },
                ThrowsMessage<TimeoutError>(
                    HasSubstr("its first values were never given (init()): worker 0 is gone")));
  }
}

}  // namespace
}  // namespace trireme::ps

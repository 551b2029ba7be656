// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/communication_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::run_threads;

TEST(CommunicationThread, DoesTasksInOrderOnAThreadOfItsOwn) {
  run_threads(1, [](Group& world) {
    CommunicationThread thread(world.duplicate("tasks"));
    thread.wait_for_all();
    std::vector<int> done;
    std::vector<CommunicationThread::Ticket> tickets;
    std::promise<void> go;
    thread.post([&](Group&) { go.get_future().wait(); });
    for (int i = 0; i < 5; ++i) {
      tickets.push_back(thread.post([&done, i](Group& group) {
        EXPECT_NE(std::this_thread::get_id(), std::thread::id());
        EXPECT_EQ(group.name(), "tasks");
        done.push_back(i);
      }));
    }
    EXPECT_TRUE(done.empty()) << "the caller goes on";
    go.set_value();
    thread.wait(tickets[4]);
    EXPECT_THAT(done, ElementsAre(0, 1, 2, 3, 4));
    thread.wait(tickets[1]);
    EXPECT_GT(thread.busy().count(), 0);
  });
}

TEST(CommunicationThread, CommunicatesWhileTheCallerDoesToo) {
  run_threads(2, [](Group& world) {
    CommunicationThread thread(world.duplicate("tasks"));
    std::vector<double> sum{1.0 + world.rank()}, mine{10.0 + world.rank()};
    const auto ticket =
        thread.post([&](Group& group) { group.all_reduce(buffer_of(std::span(sum))); });
    world.all_reduce(buffer_of(std::span(mine)));
    thread.wait(ticket);
    EXPECT_EQ(sum[0], 3.0);
    EXPECT_EQ(mine[0], 21.0);
    world.barrier();
  });
}

TEST(CommunicationThread, KeepsTheFirstFailureAndRunsNothingAfterIt) {
  run_threads(1, [](Group& world) {
    CommunicationThread thread(world.duplicate("tasks"));
    const auto fine = thread.post([](Group&) {});
    thread.wait(fine);
    thread.check();
    bool later = false;
    thread.post([](Group&) { throw std::runtime_error("the first"); });
    thread.post([](Group&) { throw std::runtime_error("the second"); });
    thread.post([&](Group&) { later = true; });
    EXPECT_EQ(failure_of([&] { thread.wait_for_all(); }), "other error: the first");
    thread.post([&](Group&) { later = true; });
    EXPECT_EQ(failure_of([&] { thread.wait_for_all(); }), "other error: the first");
    EXPECT_EQ(failure_of([&] { thread.check(); }), "other error: the first");
    EXPECT_FALSE(later);
  });
}

TEST(CommunicationThread, DestroyedWithTasksUnderWayTellsWhoWaitsInThem) {
  run_threads(3, [](Group& world) {
    std::optional<CommunicationThread> thread(std::in_place, world.duplicate("tasks"));
    thread->post([](Group& group) { group.barrier(); });
    thread->wait_for_all();
    if (world.rank() == 1) {
      thread->post([](Group& group) {
        std::vector<double> data(3);
        group.recv(buffer_of(std::span(data)), 0, 77);  // comes from no one
      });
      thread->post([](Group& group) { group.barrier(); });
      thread.reset();
      return;
    }
    thread->post([](Group& group) { group.barrier(); });
    EXPECT_THAT(failure_of([&] { thread->wait_for_all(); }),
                AllOf(HasSubstr("CommError: "), HasSubstr("rank 1 left"), HasSubstr("tasks")));
  });
}

TEST(CommunicationThread, EndsQuietlyWhenAllIsDone) {
  run_threads(2, [](Group& world) {
    {
      CommunicationThread unused(world.duplicate("unused"));
      CommunicationThread thread(world.duplicate("tasks"));
      thread.post([](Group& group) { group.barrier(); });
      thread.wait_for_all();
    }
    world.barrier();
  });
}

}  // namespace
}  // namespace trireme

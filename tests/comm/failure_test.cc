// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What survivors see when ranks die, stop, leave, or call something else.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::RankProcess;
using testing::run_rank_threads;
using testing::run_threads;
using testing::start_processes;
using ::testing::StartsWith;

// Reduces until something ends it. Says "running" when all ranks are in the loop; the options'
// timeout holds from then on.
std::string reduce_forever(WorldOptions options) {
  const auto timeout = std::exchange(options.timeout, testing::kTestDeadline);
  const auto group = join_world(options);
  std::vector<float> data(200003, 1.0F);
  for (int i = 0;; ++i) {
    if (i == 5) {
      group->set_timeout(timeout);
      RankProcess::say("running");
    }
    group->all_reduce(buffer_of(std::span(data)), ReduceOp::kMax);
  }
}

class DeathTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  std::string engine() const { return std::get<0>(GetParam()); }
  int victim() const { return std::get<1>(GetParam()); }
};

TEST_P(DeathTest, SurvivorsNameTheKilledRank) {
  auto ranks = start_processes(3, reduce_forever, engine());
  for (RankProcess& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("running"));
  const Deadline deadline = Deadline::after(testing::kLossTime);
  ranks[static_cast<std::size_t>(victim())].signal(SIGKILL);
  for (int rank = 0; rank < 3; ++rank) {
    const std::string result = ranks[static_cast<std::size_t>(rank)].result(deadline);
    if (rank == victim()) {
      EXPECT_EQ(result, "signal 9");
    } else {
      EXPECT_THAT(result, StartsWith("PeerLostError " + std::to_string(victim()) + ": rank " +
                                     std::to_string(victim()) + " on "));
    }
  }
}

TEST_P(DeathTest, SurvivorsNameTheStoppedRankAtTheDeadline) {
  const auto impatient = [](WorldOptions& options) {
    options.timeout = std::chrono::milliseconds(1500);
  };
  auto ranks = start_processes(3, reduce_forever, engine(), impatient);
  for (RankProcess& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("running"));
  ranks[static_cast<std::size_t>(victim())].signal(SIGSTOP);
  // Not a rank that the stopped one keeps in the operation before.
  const std::string name = "TimeoutError: group world: rank " + std::to_string(victim()) +
                           " on [^ ]+ did not arrive at "
                           "operation [0-9]+, all_reduce\\(max of 200003 x f32\\)";
  for (int rank = 0; rank < 3; ++rank) {
    if (rank == victim()) continue;
    EXPECT_THAT(ranks[static_cast<std::size_t>(rank)].result(), ContainsRegex(name));
  }
}

// Rank 0 waits for rank 1 in one group, rank 1 for rank 2 in another, and rank 2 computes.
TEST_P(DeathTest, WhoWaitsForAThirdRankIsNotBlamed) {
  if (victim() != 2) return;  // once per engine is enough
  int never[2];
  ASSERT_EQ(pipe(never), 0);
  const auto body = [&](const WorldOptions& options) -> std::string {
    const auto world = join_world(options);
    const auto first = options.rank < 2 ? world->split("first", {0, 1}) : nullptr;
    const auto second = options.rank > 0 ? world->split("second", {1, 2}) : nullptr;
    world->barrier();
    char byte = 0;
    if (options.rank == 2) return ::read(never[0], &byte, 1) == 1 ? "a byte" : "no byte";
    if (options.rank == 1) {
      second->set_timeout(testing::kTestDeadline);
      second->barrier();
    } else {
      first->set_timeout(std::chrono::milliseconds(300));
      first->barrier();
    }
    return "passed";
  };
  auto ranks = start_processes(3, body, engine());
  const std::string blamed =
      "TimeoutError: group first: rank 2 on [^ ]+ did not arrive at operation "
      "1, barrier\\(\\).*rank 1 waits for rank 2 in group second: operation 1, "
      "barrier\\(\\)";
  for (const std::size_t rank : {0U, 1U}) EXPECT_THAT(ranks[rank].result(), ContainsRegex(blamed));
  ::close(never[0]);
  ::close(never[1]);
}

// The usual mistake: two groups, used in different orders.
TEST_P(DeathTest, ACircleOfWaitsIsToldWhole) {
  if (victim() != 2) return;
  const auto body = [](const WorldOptions& options) -> std::string {
    const auto world = join_world(options);
    const auto one = world->split("one", {0, 1, 2});
    const auto two = world->split("two", {0, 1, 2});
    world->barrier();
    one->set_timeout(std::chrono::milliseconds(options.rank == 0 ? 500 : 60000));
    two->set_timeout(testing::kTestDeadline);
    if (options.rank == 0) {
      one->barrier();
    } else {
      two->barrier();
    }
    return "passed";
  };
  auto ranks = start_processes(3, body, engine());
  for (RankProcess& rank : ranks) {
    EXPECT_THAT(rank.result(),
                ContainsRegex("TimeoutError: group one: ranks 1, 2 did not arrive at operation 1, "
                              "barrier.*rank 1 waits for rank [02] in group two: operation 1.*"
                              "rank 2 waits for rank [01] in group two"));
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, DeathTest,
                         ::testing::Combine(::testing::Values("shm", "gloo"),
                                            ::testing::Values(0, 1, 2)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_rank_" +
                                  std::to_string(std::get<1>(test.param));
                         });

// What rank 1 sees, who waits for rank 2, when rank 0, through whom news pass, is stopped and rank
// 2 then does something and ends.
std::string seen_without_rank_zero(const std::function<std::string(Group&)>& last_act) {
  int go[2];
  if (pipe(go) != 0) return "no pipe";
  const auto body = [&](const WorldOptions& options) -> std::string {
    const auto world = join_world(options);
    const auto part = options.rank == 0 ? nullptr : world->split("part", {1, 2});
    if (part != nullptr) part->barrier();
    RankProcess::say("running");
    char byte = 0;
    if (options.rank == 2) return ::read(go[0], &byte, 1) == 1 ? last_act(*world) : "no byte";
    (part != nullptr ? *part : *world).barrier();
    return "passed";
  };
  auto ranks = start_processes(3, body);
  for (RankProcess& rank : ranks) {
    if (!rank.wait_to_hear("running")) return "a rank did not start";
  }
  ranks[0].signal(SIGSTOP);
  int status = 0;
  if (waitpid(ranks[0].pid(), &status, WUNTRACED) < 0 || !WIFSTOPPED(status)) return "no stop";
  const Deadline deadline = Deadline::after(testing::kLossTime);
  if (::write(go[1], "x", 1) != 1) return "no byte";
  const std::string seen = ranks[1].result(deadline);
  ::close(go[0]);
  ::close(go[1]);
  return seen;
}

TEST(WithoutRankZero, AKilledRankOfTheSameHostIsLost) {
  const std::string seen = seen_without_rank_zero([](Group&) -> std::string {
    ::kill(getpid(), SIGKILL);
    return {};
  });
  EXPECT_THAT(seen, AllOf(StartsWith("PeerLostError 2: rank 2 on "), HasSubstr("is lost")));
}

TEST(WithoutRankZero, AGoodbyeIsNotTakenForALoss) {
  const std::string seen = seen_without_rank_zero([](Group& world) {
    world.close();
    return std::string("left");
  });
  EXPECT_THAT(seen,
              AllOf(StartsWith("CommError: "), HasSubstr("rank 2 on "), HasSubstr(" has left")));
}

TEST(WithoutRankZero, ARankThatGaveUpIsNotTheCause) {
  const std::string seen = seen_without_rank_zero([](Group& world) {
    std::vector<float> data(1000);
    world.split("pending", {0, 1, 2})->start_all_reduce(buffer_of(std::span(data)));
    return std::string("gave up");
  });
  EXPECT_EQ(seen, "CommError: rank 2 destroyed group pending with work pending");
}

class FailureTest : public ::testing::TestWithParam<std::string> {};

// The message of what f throws, which must be an E.
template <class E>
std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

using Call = std::function<void(Group&)>;

// Rank 1 of 3 calls something else than the others; everyone hears both sides, again and again.
void expect_mismatch(const std::string& engine, const Call& common, const std::string& common_name,
                     const Call& odd, const std::string& odd_name) {
  run_threads(
      3,
      [&](Group& group) {
        group.barrier();
        group.barrier();
        const std::string message =
            message_of<CommError>([&] { group.rank() == 1 ? odd(group) : common(group); });
        EXPECT_THAT(message, AllOf(HasSubstr(" calls " + common_name), HasSubstr("at number 4"),
                                   HasSubstr("rank 1 on"), HasSubstr(" calls " + odd_name)));
        EXPECT_EQ(message_of<CommError>([&] { group.barrier(); }), message);
      },
      engine);
}

TEST_P(FailureTest, MismatchShowsBothSides) {
  const auto reduce = [](std::int64_t count, ReduceOp op = ReduceOp::kSum) {
    return [=](Group& group) {
      std::vector<float> data(static_cast<std::size_t>(count));
      group.all_reduce(buffer_of(std::span(data)), op);
    };
  };
  const auto reduce_ints = [](Group& group) {
    std::vector<std::int32_t> data(70000);
    group.all_reduce(buffer_of(std::span(data)));
  };
  const auto broadcast = [](int root) {
    return [=](Group& group) {
      std::vector<float> data(70000);
      group.broadcast(buffer_of(std::span(data)), root);
    };
  };
  const auto barrier = [](Group& group) { group.barrier(); };
  expect_mismatch(GetParam(), reduce(70000), "all_reduce(sum of 70000 x f32)", reduce(70001),
                  "all_reduce(sum of 70001 x f32)");
  expect_mismatch(GetParam(), reduce(70000), "all_reduce(sum of 70000 x f32)", reduce(3),
                  "all_reduce(sum of 3 x f32)");
  expect_mismatch(GetParam(), reduce(3), "all_reduce(sum of 3 x f32)", reduce(3, ReduceOp::kMax),
                  "all_reduce(max of 3 x f32)");
  expect_mismatch(GetParam(), reduce(70000), "all_reduce(sum of 70000 x f32)", reduce_ints,
                  "all_reduce(sum of 70000 x i32)");
  expect_mismatch(GetParam(), reduce(70000), "all_reduce(sum of 70000 x f32)", broadcast(0),
                  "broadcast(70000 x f32 from rank 0)");
  expect_mismatch(GetParam(), broadcast(0), "broadcast(70000 x f32 from rank 0)", broadcast(2),
                  "broadcast(70000 x f32 from rank 2)");
  expect_mismatch(GetParam(), barrier, "barrier()", reduce(70000),
                  "all_reduce(sum of 70000 x f32)");
}

// One failure ends every group of the world, work that is pending, and work that is started later.
TEST_P(FailureTest, FirstCauseIsKeptForAllGroups) {
  run_threads(
      2,
      [](Group& group) {
        const auto part = group.split("part", {0, 1});
        std::vector<float> data(1000);
        std::string cause;
        if (group.rank() == 0) {
          group.set_timeout(std::chrono::milliseconds(100));
          Work first = group.start_all_reduce(buffer_of(std::span(data)));
          Work second = group.start_all_reduce(buffer_of(std::span(data)));
          cause = message_of<TimeoutError>([&] { first.wait(); });
          EXPECT_EQ(message_of<TimeoutError>([&] { second.wait(); }), cause);
        } else {
          // Waits in another group, with all the time of the world.
          cause = message_of<TimeoutError>([&] { part->barrier(); });
        }
        EXPECT_THAT(cause, HasSubstr("group world: rank 1 "));
        for (Group* each : {&group, part.get()}) {
          EXPECT_EQ(message_of<TimeoutError>([&] { each->barrier(); }), cause);
          EXPECT_EQ(
              message_of<TimeoutError>([&] { each->start_all_reduce(buffer_of(std::span(data))); }),
              cause);
          EXPECT_EQ(message_of<TimeoutError>([&] { each->split("late", {0, 1}); }), cause);
        }
      },
      GetParam());
}

// A group that goes without close(), as by an exception, is a lost peer.
TEST_P(FailureTest, VanishedRankIsLost) {
  const testing::Listener listener = testing::listen_on_free_port();
  const auto options = testing::world_options(3, listener, GetParam());
  run_rank_threads(3, [&](int rank) {
    const auto group = join_world(options[static_cast<std::size_t>(rank)]);
    group->barrier();
    if (rank == 1) return;
    try {
      group->barrier();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const PeerLostError& error) {
      EXPECT_EQ(error.rank(), 1);
    }
    // Rank 0 carries the news, so it stays until rank 2 has heard them.
    group->close();
  });
}

TEST_P(FailureTest, GroupDestroyedWithWorkPendingIsToldToAll) {
  std::atomic<bool> both_joined = false;
  run_threads(
      2,
      [&](Group& group) {
        std::vector<float> data(1000);
        if (group.rank() == 0) {
          while (!both_joined) std::this_thread::yield();
          const auto part = group.split("part", {0, 1});
          part->start_all_reduce(buffer_of(std::span(data)));
        } else {
          both_joined = true;
          const std::string message = message_of<CommError>([&] { group.barrier(); });
          EXPECT_EQ(message, "rank 0 destroyed group part with work pending");
        }
      },
      GetParam());
}

TEST_P(FailureTest, WaitingForARankThatHasLeftIsAnError) {
  run_threads(
      3,
      [](Group& group) {
        group.barrier();
        if (group.rank() == 2) return;
        const std::string message = message_of<CommError>([&] { group.barrier(); });
        EXPECT_THAT(message, AllOf(HasSubstr("has left"), HasSubstr("operation 3, barrier()")));
      },
      GetParam());
}

TEST_P(FailureTest, NothingLeaks) {
  const auto descriptors = [] {
    std::ptrdiff_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      ++count;
    }
    return count;
  };
  const auto mapped = [] {
    std::ifstream maps("/proc/self/maps");
    const std::string text((std::istreambuf_iterator<char>(maps)), {});
    return text.find("memfd:trireme") != std::string::npos;
  };
  const auto use = [](Group& group) {
    const auto part = group.split("part", {0, 1, 2});
    part->barrier();
    group.barrier();
  };
  run_threads(3, use, GetParam());  // once, for what is made once
  const auto before = descriptors();
  run_threads(3, use, GetParam());
  EXPECT_EQ(descriptors(), before);
  EXPECT_FALSE(mapped());
}

// The inodes of the shared memory that a process of ours has mapped or open.
std::set<std::string> shared_memory_of(const std::string& process) {
  std::set<std::string> inodes;
  std::ifstream maps("/proc/" + process + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:trireme") == std::string::npos) continue;
    std::istringstream words(line);
    std::string range, access, offset, device, inode;
    words >> range >> access >> offset >> device >> inode;
    inodes.insert(inode);
  }
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + process + "/fd", none)) {
    struct stat status {};
    const std::string target = std::filesystem::read_symlink(entry.path(), none).string();
    if (target.starts_with("/memfd:trireme") && stat(entry.path().c_str(), &status) == 0) {
      inodes.insert(std::to_string(status.st_ino));
    }
  }
  return inodes;
}

// Anonymous memory is gone when no process holds it any more.
TEST_P(FailureTest, KilledJobLeavesNobodyWithItsMemory) {
  auto ranks = start_processes(3, reduce_forever, GetParam());
  for (RankProcess& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("running"));
  const std::set<std::string> memory = shared_memory_of(std::to_string(ranks[1].pid()));
  EXPECT_FALSE(memory.empty());
  for (RankProcess& rank : ranks) rank.signal(SIGKILL);
  for (RankProcess& rank : ranks) EXPECT_EQ(rank.result(), "signal 9");
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    for (const std::string& inode : shared_memory_of(entry.path().filename().string())) {
      EXPECT_FALSE(memory.contains(inode)) << entry.path();
    }
  }
}

TEST_P(FailureTest, KilledJobLeavesNothingInSharedMemory) {
  const auto named = [] {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
      names.push_back(entry.path());
    }
    std::sort(names.begin(), names.end());
    return names;
  };
  const auto before = named();
  auto ranks = start_processes(2, reduce_forever, GetParam());
  for (RankProcess& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("running"));
  EXPECT_EQ(named(), before);
  for (RankProcess& rank : ranks) rank.signal(SIGKILL);
  for (RankProcess& rank : ranks) EXPECT_EQ(rank.result(), "signal 9");
  EXPECT_EQ(named(), before);
}

INSTANTIATE_TEST_SUITE_P(Engines, FailureTest, ::testing::Values("shm", "gloo"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace trireme

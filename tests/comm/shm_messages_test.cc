// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages through shared memory: rings that wrap and overflow, any order of receives, threads, and
// peers that end or stop in the middle.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/shm_ranks.h"
#include "trireme/base/error.h"
#include "trireme/comm/shm/shm_ring.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using ::testing::HasSubstr;
using testing::RankProcess;
using testing::run_shm_threads;
using testing::ShmRank;
using testing::start_processes;
using ::testing::StartsWith;

std::int64_t count_of(const Bytes& bytes) { return static_cast<std::int64_t>(bytes.size()); }
ConstBuffer as_input(const Bytes& bytes) { return {bytes.data(), count_of(bytes), DType::kU8}; }
Buffer as_output(Bytes& bytes) { return {bytes.data(), count_of(bytes), DType::kU8}; }

// Different for every pair of ranks, tag and sequence.
Bytes message(int from, int to, int tag, std::uint64_t sequence, std::int64_t bytes) {
  return distinct_data(from * 31 + to * 7 + tag * 101 + static_cast<int>(sequence) * 1009, bytes,
                       DType::kU8);
}
// Around a header's line, a chunk, and the whole ring.
std::int64_t odd_size(std::uint64_t i) {
  constexpr std::int64_t kSizes[] = {0, 1, 23, 24, 25, 63, 65, 4099, 32767, 32768, 32769, 262147};
  return kSizes[i % std::size(kSizes)];
}

void expect_message(ShmRank& rank, int from, int tag, std::uint64_t sequence, std::int64_t bytes) {
  Bytes got(static_cast<std::size_t>(bytes));
  rank.engine().receive({from, tag, sequence}, as_output(got), ShmRank::deadline());
  ASSERT_TRUE(got == message(from, rank.rank(), tag, sequence, bytes))
      << "tag " << tag << " sequence " << sequence << " bytes " << bytes;
}

TEST(ShmMessages, ArriveWholeAtEverySize) {
  constexpr std::uint64_t kMessages = 3000;
  run_shm_threads(2, [](ShmRank& rank) {
    for (std::uint64_t i = 0; i < kMessages; ++i) {
      if (rank.rank() == 0) {
        const Bytes data = message(0, 1, 4, i, odd_size(i));
        rank.engine().send({1, 4, i}, as_input(data), ShmRank::deadline());
      } else {
        expect_message(rank, 0, 4, i, odd_size(i));
      }
    }
  });
}

// All that is sent is far more than a ring; what is received first was sent last.
TEST(ShmMessages, MayBeReceivedInAnyOrder) {
  constexpr int kTags = 40;
  run_shm_threads(2, [](ShmRank& rank) {
    for (int i = 0; i < kTags; ++i) {
      const int tag = rank.rank() == 0 ? i : kTags - 1 - i;
      const std::int64_t bytes = odd_size(static_cast<std::uint64_t>(tag));
      if (rank.rank() == 0) {
        const Bytes data = message(0, 1, tag, 0, bytes);
        rank.engine().send({1, tag, 0}, as_input(data), ShmRank::deadline());
      } else {
        expect_message(rank, 0, tag, 0, bytes);
      }
    }
  });
}

TEST(ShmMessages, ThreeThreadsReceiveFromOnePeer) {
  constexpr std::uint64_t kEach = 400;
  run_shm_threads(2, [](ShmRank& rank) {
    std::vector<std::thread> threads;
    for (int tag = 0; tag < 3; ++tag) {
      threads.emplace_back([&rank, tag] {
        for (std::uint64_t i = 0; i < kEach; ++i) {
          const std::int64_t bytes = odd_size(i + static_cast<std::uint64_t>(tag));
          if (rank.rank() == 1) {
            expect_message(rank, 0, tag, i, bytes);
            continue;
          }
          const Bytes data = message(0, 1, tag, i, bytes);
          rank.engine().send({1, tag, i}, as_input(data), ShmRank::deadline());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
}

// Larger than the ring both ways round a circle: nobody can send all before receiving.
TEST(ShmMessages, ExchangeAroundACircle) {
  constexpr std::int64_t kBytes = 3 * ShmRing::kBytes + 17;
  for (int n = 2; n <= 8; ++n) {
    run_shm_threads(n, [n](ShmRank& rank) {
      const int to = (rank.rank() + 1) % n;
      const int from = (rank.rank() + n - 1) % n;
      for (std::uint64_t i = 0; i < 4; ++i) {
        const Bytes out = message(rank.rank(), to, 5, i, kBytes);
        Bytes in(kBytes);
        rank.engine().exchange({to, 5, i}, as_input(out), {from, 5, i}, as_output(in),
                               ShmRank::deadline());
        ASSERT_TRUE(in == message(from, rank.rank(), 5, i, kBytes));
      }
    });
  }
}

// What was sent stands in the receiver's memory.
TEST(ShmMessages, OutliveTheirSender) {
  auto ranks = start_processes(2, [](const WorldOptions& options) -> std::string {
    const auto group = join_world(options);
    Bytes data = message(1, 0, 2, 0, 1025);
    if (group->rank() == 1) {
      group->send(as_input(data), 0, 2);
      group->close();
      return "sent";
    }
    RankProcess::say("joined");
    // The goodbye comes by another way; a message that never comes ends with it.
    Bytes got(data.size());
    group->recv(as_output(got), 1, 2);
    try {
      group->recv(as_output(got), 1, 2);
    } catch (const CommError& error) {
      return got == data ? error.what() : "other bytes";
    }
    return "nothing was thrown";
  });
  EXPECT_EQ(ranks[1].result(), "sent");
  EXPECT_THAT(ranks[0].result(), HasSubstr("has left"));
}

TEST(ShmMessages, DifferentEndsAreShown) {
  run_shm_threads(2, [](ShmRank& rank) {
    Bytes data(3 * ShmRing::kBytes);
    if (rank.rank() == 0) {
      data.resize(100);
      rank.engine().send({1, 3, 0}, as_input(data), ShmRank::deadline());
      return;
    }
    try {
      rank.engine().receive({0, 3, 0}, as_output(data), ShmRank::deadline());
      ADD_FAILURE() << "nothing was thrown";
    } catch (const CommError& error) {
      EXPECT_THAT(error.what(), HasSubstr("recv(786432 x u8 from rank 0, tag 3)"));
      EXPECT_THAT(error.what(), HasSubstr("send(100 x u8 to rank 1, tag 3)"));
    }
  });
}

// Rank 1 takes messages until it is told otherwise; rank 0 is in the middle of one larger than the
// ring when that happens.
std::string stream_forever(const WorldOptions& options) {
  const auto group = join_world(options);
  Bytes data(10 * ShmRing::kBytes + 3);
  for (int i = 0;; ++i) {
    if (i == 3) RankProcess::say("running");
    if (group->rank() == 0) {
      group->send(as_input(data), 1);
    } else {
      group->recv(as_output(data), 0);
    }
  }
}

class ShmMessageFailure : public ::testing::TestWithParam<int> {};

TEST_P(ShmMessageFailure, KilledPeerIsNamed) {
  auto ranks = start_processes(2, stream_forever);
  for (RankProcess& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("running"));
  const auto victim = static_cast<std::size_t>(GetParam());
  const Deadline deadline = Deadline::after(testing::kLossTime);
  ranks[victim].signal(SIGKILL);
  EXPECT_THAT(ranks[1 - victim].result(deadline),
              StartsWith("PeerLostError " + std::to_string(victim)));
}

TEST_P(ShmMessageFailure, StoppedPeerIsNamedAtTheDeadline) {
  auto ranks = start_processes(2, stream_forever, "shm", [](WorldOptions& options) {
    options.timeout = std::chrono::milliseconds(1500);
  });
  for (RankProcess& rank : ranks) ASSERT_TRUE(rank.wait_to_hear("running"));
  const auto victim = static_cast<std::size_t>(GetParam());
  ranks[victim].signal(SIGSTOP);
  const std::string result = ranks[1 - victim].result();
  EXPECT_THAT(result, StartsWith("TimeoutError: group world: rank " + std::to_string(victim)));
  EXPECT_THAT(result, HasSubstr(victim == 1 ? "send(" : "recv("));
}

INSTANTIATE_TEST_SUITE_P(Victims, ShmMessageFailure, ::testing::Values(0, 1));

}  // namespace
}  // namespace trireme

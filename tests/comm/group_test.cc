// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Order, Works, parts and arguments of Group. What the operations compute: operations_test.cc.

#include "trireme/comm/group.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <latch>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/placements.h"
#include "tests/support/ranks.h"
#include "tests/support/reference_tree.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::inputs_of;
using testing::reference_reduce;
using testing::run_threads;

std::int64_t as_count(const Bytes& bytes, DType dtype) {
  return static_cast<std::int64_t>(bytes.size() / dtype_bytes(dtype));
}
Buffer as_buffer(Bytes& bytes, DType dtype) {
  return {bytes.data(), as_count(bytes, dtype), dtype};
}

class GroupTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  std::string engine() const { return std::get<0>(GetParam()); }
  int size() const { return std::get<1>(GetParam()); }
};

TEST_P(GroupTest, KnowsItself) {
  run_threads(
      size(),
      [&](Group& group) {
        EXPECT_EQ(group.size(), size());
        EXPECT_EQ(group.name(), "world");
        EXPECT_EQ(group.engine(), size() == 1 ? "self" : engine());
        for (int rank = 0; rank < size(); ++rank) EXPECT_EQ(group.world_ranks()[rank], rank);
      },
      engine());
}

// A rank is past the barrier only when all have come to it.
TEST_P(GroupTest, BarrierHoldsEveryoneBack) {
  std::atomic<int> arrived = 0;
  run_threads(
      size(),
      [&](Group& group) {
        for (int round = 1; round <= 50; ++round) {
          arrived.fetch_add(1);
          group.barrier();
          EXPECT_GE(arrived.load(), round * size());
          group.barrier();
        }
      },
      engine());
}

TEST_P(GroupTest, WorkKeepsOrderAndBlockingCallsQueueBehindIt) {
  run_threads(
      size(),
      [&](Group& group) {
        constexpr int kBuckets = 12;
        const auto rank = static_cast<std::size_t>(group.rank());
        std::vector<Bytes> buckets;
        std::vector<Work> works;
        for (int i = 0; i < kBuckets; ++i) {
          buckets.push_back(inputs_of(size(), 5003 + i, DType::kF32)[rank]);
        }
        for (Bytes& bucket : buckets) {
          works.push_back(group.start_all_reduce(as_buffer(bucket, DType::kF32)));
        }
        // Data that depends on the buckets before it: wrong if it overtakes them.
        group.all_reduce(as_buffer(buckets.back(), DType::kF32));
        for (Work& work : works) EXPECT_TRUE(work.test());
        for (Work& work : works) work.wait();
        for (int i = 0; i < kBuckets; ++i) {
          const Bytes once = reference_reduce(inputs_of(size(), 5003 + i, DType::kF32), DType::kF32,
                                              ReduceOp::kSum);
          const Bytes twice =
              reference_reduce(std::vector<Bytes>(static_cast<std::size_t>(size()), once),
                               DType::kF32, ReduceOp::kSum);
          ASSERT_TRUE(buckets[static_cast<std::size_t>(i)] == (i + 1 < kBuckets ? once : twice))
              << "bucket " << i;
        }
        Bytes input = distinct_data(group.rank(), 77, DType::kI32);
        Bytes output(input.size() * static_cast<std::size_t>(size()));
        Bytes data = distinct_data(group.rank(), 77, DType::kI32);
        Work gather =
            group.start_all_gather(as_buffer(input, DType::kI32), as_buffer(output, DType::kI32));
        Work broadcast = group.start_broadcast(as_buffer(data, DType::kI32), size() - 1);
        gather.wait();
        broadcast.wait();
        EXPECT_TRUE(data == distinct_data(size() - 1, 77, DType::kI32));
        EXPECT_TRUE(
            std::equal(data.begin(), data.end(), output.end() - static_cast<long>(data.size())));
      },
      engine());
}

TEST_P(GroupTest, PartsWorkAtTheSameTime) {
  run_threads(
      size(),
      [&](Group& world) {
        // Even and odd ranks, and pairs that overlap both.
        std::vector<int> half;
        for (int rank = world.rank() % 2; rank < size(); rank += 2) half.push_back(rank);
        const int first = world.rank() / 2 * 2;
        std::vector<int> pair{first};
        if (first + 1 < size()) pair.push_back(first + 1);
        const auto a = world.split("half", half);
        const auto b = world.split("pair", pair);
        EXPECT_EQ(a->world_ranks(), half);
        EXPECT_EQ(a->rank(), world.rank() / 2);
        std::vector<std::int64_t> of_half(40001, world.rank() + 1);
        std::vector<std::int64_t> of_pair(40001, world.rank() + 1);
        std::vector<std::int64_t> of_world(3, world.rank() + 1);
        for (int round = 0; round < 5; ++round) {
          Work one = a->start_all_reduce(buffer_of(std::span(of_half)), ReduceOp::kMax);
          Work two = b->start_all_reduce(buffer_of(std::span(of_pair)), ReduceOp::kMax);
          world.all_reduce(buffer_of(std::span(of_world)), ReduceOp::kMax);
          // The other way round on every second rank: parts do not wait for one another.
          if (world.rank() % 2 == 0) two.wait();
          one.wait();
          two.wait();
        }
        EXPECT_EQ(of_half[40000], half.back() + 1);
        EXPECT_EQ(of_pair[40000], pair.back() + 1);
        EXPECT_EQ(of_world[2], size());
      },
      engine());
}

// Together the ranks send what a ring would; which of them sends a cache line more is open.
TEST_P(GroupTest, CountsBytesThatLeave) {
  constexpr std::int64_t kCount = 100003;
  std::atomic<std::int64_t> sent = 0;
  run_threads(
      size(),
      [&](Group& group) {
        Bytes data = distinct_data(group.rank(), kCount, DType::kF32);
        const std::int64_t before = group.bytes_sent();
        group.all_reduce(as_buffer(data, DType::kF32));
        sent += group.bytes_sent() - before;
      },
      engine());
  EXPECT_EQ(sent.load(), 2 * (size() - 1) * kCount * 4);
}

// Each in an order of its own: one rank starts the copies' operations the other way round.
TEST_P(GroupTest, DuplicatesHaveTheSameRanksAndAnOrderOfTheirOwn) {
  run_threads(
      size(),
      [&](Group& group) {
        const auto first = group.duplicate("copy");
        const auto second = group.duplicate("copy");
        const auto nested = first->duplicate("copy");
        EXPECT_EQ(first->name(), "copy");
        EXPECT_EQ(second->name(), "copy#2");
        EXPECT_EQ(nested->name(), "copy");
        EXPECT_EQ(group.duplicate("copy")->name(), "copy#3");
        std::vector<std::vector<std::int64_t>> data(4);
        std::vector<Group*> groups{&group, first.get(), second.get(), nested.get()};
        if (group.rank() == size() - 1) std::swap(groups[1], groups[3]);
        std::vector<Work> works;
        for (Group* one : groups) {
          EXPECT_EQ(one->rank(), group.rank());
          EXPECT_EQ(one->world_ranks(), group.world_ranks());
          auto& own = data[works.size()];
          const std::int64_t factor = one == first.get() ? 10 : one == second.get() ? 100 : 1;
          own.assign(7, factor * (group.rank() + 1));
          works.push_back(one->start_all_reduce(buffer_of(std::span(own))));
        }
        for (Work& work : works) work.wait();
        for (std::size_t i = 0; i < groups.size(); ++i) {
          const std::int64_t factor = groups[i] == first.get()    ? 10
                                      : groups[i] == second.get() ? 100
                                                                  : 1;
          EXPECT_EQ(data[i][6], factor * size() * (size() + 1) / 2) << groups[i]->name();
        }
      },
      engine());
}

// From a part, with an operation of another group under way: that and all others end by it.
TEST_P(GroupTest, AbandonEndsTheWorldByTheNameOfWhoLeft) {
  std::latch all_have_parts(size());
  run_threads(
      size(),
      [&](Group& group) {
        const auto part = group.duplicate("part");
        all_have_parts.arrive_and_wait();
        const int leaver = size() / 2;
        if (size() == 1) {
          part->abandon("had enough");
          part->barrier();
          return group.barrier();
        }
        if (group.rank() == leaver) {
          part->abandon("had enough");
          part->abandon("said twice");
        }
        for (Group* one : {&group, part.get()}) {
          try {
            one->barrier();
            ADD_FAILURE() << "rank " << group.rank() << " passed a barrier of " << one->name();
          } catch (const CommError& error) {
            const std::string expected =
                "group part: rank " + std::to_string(leaver) + " left: had enough";
            EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
          }
        }
      },
      engine());
}

TEST(GroupAbandon, AfterTheGoodbyeDisturbsNoOne) {
  run_threads(3, [](Group& group) {
    const auto part = group.duplicate("part");
    part->barrier();
    if (group.rank() == 2) {
      group.close();
      part->abandon("too late");
      group.abandon("too late");
      return;
    }
    const auto rest = group.split("rest", {0, 1});
    for (int i = 0; i < 20; ++i) rest->barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(Engines, GroupTest,
                         ::testing::Combine(::testing::Values("shm", "gloo"),
                                            ::testing::Values(1, 2, 3, 4, 5, 6, 7, 8)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" +
                                  std::to_string(std::get<1>(test.param));
                         });

TEST(GroupHosts, AreNumberedByTheirLowestRank) {
  testing::run_placed({"shm+gloo", {7, 3, 7, 5, 3}}, [](Group& world) {
    EXPECT_EQ(world.hosts(), (std::vector<int>{0, 1, 0, 2, 1}));
    if (world.rank() == 0) return;
    const auto part = world.split("part", {1, 2, 3, 4});
    EXPECT_EQ(part->hosts(), (std::vector<int>{0, 1, 2, 0}));
  });
  run_threads(1, [](Group& alone) { EXPECT_EQ(alone.hosts(), std::vector<int>{0}); });
}

TEST(GroupArguments, AreRefusedBeforeAnythingIsSent) {
  run_threads(2, [](Group& group) {
    std::vector<std::int32_t> ints(6);
    std::vector<float> floats(4);
    EXPECT_THROW(group.all_reduce(buffer_of(std::span(ints)), ReduceOp::kMean), ShapeError);
    EXPECT_THROW(group.broadcast(buffer_of(std::span(ints)), 2), ShapeError);
    EXPECT_THROW(group.all_gather(buffer_of(std::span(floats)), buffer_of(std::span(floats))),
                 ShapeError);
    EXPECT_THROW(group.all_reduce({nullptr, 3, DType::kF32}), ShapeError);
    EXPECT_THROW(group.split("part", {1 - group.rank()}), ConfigError);
    EXPECT_THROW(group.split("part", {1, 0}), ConfigError);
    const auto part = group.split("part", {0, 1});
    EXPECT_THROW(group.split("part", {0, 1}), ConfigError);
    group.barrier();
  });
}

// Whoever waited for all of a group's Works may end the group at once: nothing is pending.
TEST(GroupEnd, MayFollowTheLastWait) {
  run_threads(2, [](Group& world) {
    for (int round = 0; round < 200; ++round) {
      const auto part = world.split("part " + std::to_string(round), {0, 1});
      const std::int32_t out = round;
      std::int32_t in = -1;
      Work sends = part->start_send(const_buffer_of(std::span(&out, 1)), 1 - part->rank());
      Work receives = part->start_recv(buffer_of(std::span(&in, 1)), 1 - part->rank());
      receives.wait();
      sends.wait();
      ASSERT_EQ(in, round);
    }
  });
}

TEST(GroupClose, IsIdempotentAndFinal) {
  run_threads(2, [](Group& group) {
    std::vector<float> data(100000, 1.0F);
    Work work = group.start_all_reduce(buffer_of(std::span(data)));
    group.close();
    EXPECT_TRUE(work.test());
    EXPECT_EQ(data[99999], 2.0F);
    group.close();
    EXPECT_THROW(group.barrier(), CommError);
  });
}

}  // namespace
}  // namespace trireme

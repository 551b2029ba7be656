// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Ranks on imitated hosts: threads of this process that are told to have different hosts. The
// operations themselves are held to the model by the tests of all engines; here stands what only a
// hierarchy can get wrong: placements, pieces, rounds, and what crosses between hosts.

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/ranks.h"
#include "tests/support/reference_tree.h"
#include "trireme/comm/hierarchy/host_map.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::reference_reduce;

using Placement = std::vector<int>;  // host by rank

std::string name_of(const ::testing::TestParamInfo<Placement>& info) {
  std::string name = "Hosts";
  for (const int host : info.param) name += std::to_string(host);
  return name;
}

void run_on_hosts(const Placement& hosts, const std::function<void(Group&)>& body) {
  const int n = static_cast<int>(hosts.size());
  const testing::Listener listener = testing::listen_on_free_port();
  const std::vector<WorldOptions> options = testing::world_options(n, listener);
  testing::run_rank_threads(n, [&](int rank) {
    WorldOptions own = options[static_cast<std::size_t>(rank)];
    own.host_id = "host " + std::to_string(hosts[static_cast<std::size_t>(rank)]);
    const std::unique_ptr<Group> group = join_world(own);
    body(*group);
    group->close();
  });
}

Buffer as_buffer(Bytes& bytes, DType dtype) {
  return {bytes.data(), static_cast<std::int64_t>(bytes.size() / dtype_bytes(dtype)), dtype};
}

std::vector<Bytes> inputs_of(int n, std::int64_t count, DType dtype) {
  std::vector<Bytes> inputs;
  for (int rank = 0; rank < n; ++rank) inputs.push_back(distinct_data(rank, count, dtype));
  return inputs;
}

// Counts that are nothing, one rail, many rails, and several pieces (which are at least 1 MiB).
const std::vector<std::int64_t> kCounts{0, 1, 1033, 40009, 900001};

class HierarchicalTest : public ::testing::TestWithParam<Placement> {
 protected:
  int size() const { return static_cast<int>(GetParam().size()); }
};

TEST_P(HierarchicalTest, ReductionsHaveTheBitsOfTheTree) {
  struct Case {
    DType dtype;
    ReduceOp op;
    std::vector<Bytes> inputs;
    Bytes expected;
  };
  std::vector<Case> cases;
  for (const std::int64_t count : kCounts) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
      const ReduceOp op = dtype == DType::kBF16 ? ReduceOp::kMean : ReduceOp::kSum;
      Case one{dtype, op, inputs_of(size(), count, dtype), {}};
      one.expected = reference_reduce(one.inputs, dtype, op);
      cases.push_back(std::move(one));
    }
  }
  run_on_hosts(GetParam(), [&](Group& group) {
    EXPECT_EQ(group.engine(), "shm+gloo");
    const auto own = static_cast<std::size_t>(group.rank());
    int root = 0;
    for (const Case& one : cases) {
      Bytes all = one.inputs[own];
      group.all_reduce(as_buffer(all, one.dtype), one.op);
      EXPECT_TRUE(all == one.expected) << "all_reduce of " << one.expected.size() << " bytes";
      Bytes some = one.inputs[own];
      root = (root + 1) % size();
      group.reduce(as_buffer(some, one.dtype), root, one.op);
      EXPECT_TRUE(some == (group.rank() == root ? one.expected : one.inputs[own]))
          << "reduce of " << one.expected.size() << " bytes to " << root;
    }
  });
}

TEST_P(HierarchicalTest, ScatteredReductionsHaveTheBitsOfTheTree) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < size(); ++rank) counts.push_back(rank == 1 ? 0 : 70001 * rank + 13);
  const std::int64_t whole = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  const std::vector<Bytes> inputs = inputs_of(size(), whole, DType::kF32);
  const Bytes expected = reference_reduce(inputs, DType::kF32, ReduceOp::kSum);
  run_on_hosts(GetParam(), [&](Group& group) {
    const auto own = static_cast<std::size_t>(group.rank());
    Bytes input = inputs[own];
    const std::int64_t offset =
        std::accumulate(counts.begin(), counts.begin() + group.rank(), std::int64_t{0});
    const auto first = expected.begin() + offset * 4;
    const Bytes block(first, first + counts[own] * 4);
    Bytes output(block.size());
    group.reduce_scatter(as_buffer(input, DType::kF32), as_buffer(output, DType::kF32),
                         ReduceOp::kSum, counts);
    EXPECT_TRUE(output == block);
    EXPECT_TRUE(input == inputs[own]);
    // The output as this rank's block of the input.
    const Buffer in_place{input.data() + offset * 4, counts[own], DType::kF32};
    group.reduce_scatter(as_buffer(input, DType::kF32), in_place, ReduceOp::kSum, counts);
    EXPECT_TRUE(std::equal(block.begin(), block.end(), input.begin() + offset * 4));
  });
}

TEST_P(HierarchicalTest, MovesArrive) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < size(); ++rank) counts.push_back(rank == 1 ? 0 : 90001 * rank + 17);
  std::vector<Bytes> blocks;
  Bytes whole;
  for (int rank = 0; rank < size(); ++rank) {
    blocks.push_back(distinct_data(rank, counts[static_cast<std::size_t>(rank)], DType::kI32));
    whole.insert(whole.end(), blocks.back().begin(), blocks.back().end());
  }
  run_on_hosts(GetParam(), [&](Group& group) {
    const auto own = static_cast<std::size_t>(group.rank());
    Bytes input = blocks[own];
    Bytes gathered(whole.size());
    group.all_gather(as_buffer(input, DType::kI32), as_buffer(gathered, DType::kI32), counts);
    EXPECT_TRUE(gathered == whole);
    for (int root = 0; root < size(); ++root) {
      Bytes data = group.rank() == root ? whole : Bytes(whole.size());
      group.broadcast(as_buffer(data, DType::kI32), root);
      EXPECT_TRUE(data == whole) << "broadcast from " << root;
      Bytes collected(group.rank() == root ? whole.size() : 0);
      group.gather(as_buffer(input, DType::kI32), as_buffer(collected, DType::kI32), root, counts);
      EXPECT_TRUE(group.rank() != root || collected == whole) << "gather to " << root;
      Bytes part(input.size());
      group.scatter(as_buffer(data, DType::kI32), as_buffer(part, DType::kI32), root, counts);
      EXPECT_TRUE(part == blocks[own]) << "scatter from " << root;
    }
    group.barrier();
  });
}

// Rank i sends 100 i + j + 1 elements to rank j, each its own value.
TEST_P(HierarchicalTest, EveryPairExchanges) {
  run_on_hosts(GetParam(), [&](Group& group) {
    const int own = group.rank();
    const auto count = [](int from, int to) { return 100 * from + to + 1; };
    const auto value = [](int from, int to, int i) { return (from * 100 + to) * 1000 + i; };
    std::vector<std::int64_t> sends;
    std::vector<std::int64_t> receives;
    std::vector<std::int32_t> input;
    std::vector<std::int32_t> expected;
    for (int peer = 0; peer < size(); ++peer) {
      sends.push_back(count(own, peer));
      receives.push_back(count(peer, own));
      for (int i = 0; i < sends.back(); ++i) input.push_back(value(own, peer, i));
      for (int i = 0; i < receives.back(); ++i) expected.push_back(value(peer, own, i));
    }
    std::vector<std::int32_t> output(expected.size());
    group.all_to_all(buffer_of(std::span(input)), buffer_of(std::span(output)), sends, receives);
    EXPECT_EQ(output, expected);
    // Around the ring, over both kinds of neighbours.
    const std::int32_t mine = own * 7 + 1;
    std::int32_t theirs = 0;
    const int left = (own + size() - 1) % size();
    group.send_recv(const_buffer_of(std::span(&mine, 1)), (own + 1) % size(),
                    buffer_of(std::span(&theirs, 1)), left, 5);
    EXPECT_EQ(theirs, left * 7 + 1);
  });
}

INSTANTIATE_TEST_SUITE_P(Placements, HierarchicalTest,
                         ::testing::Values(Placement{0, 0, 1, 1}, Placement{0, 0, 0, 1, 1, 1},
                                           Placement{0, 1, 0, 1, 0}, Placement{0, 0, 0, 0, 1},
                                           Placement{0, 1, 1, 2, 2, 2, 2},
                                           Placement{1, 0, 0, 0, 2, 1, 2, 0}),
                         name_of);

// Two hosts of two ranks: each byte of the data leaves each host once and enters it once.
TEST(HierarchicalTraffic, EveryByteCrossesOnceEachWay) {
  constexpr std::int64_t kCount = 3 << 20;
  std::atomic<std::int64_t> left[2] = {0, 0};
  run_on_hosts({0, 0, 1, 1}, [&](Group& group) {
    Bytes data = distinct_data(group.rank(), kCount, DType::kF32);
    group.all_reduce(as_buffer(data, DType::kF32));
    left[group.rank() / 2] += group.bytes_sent_between_hosts();
  });
  EXPECT_EQ(left[0].load(), kCount * 4);
  EXPECT_EQ(left[1].load(), kCount * 4);
}

TEST(HierarchicalTraffic, ABroadcastEntersEachHostOnce) {
  constexpr std::int64_t kCount = 1000003;
  std::atomic<std::int64_t> left = 0;
  run_on_hosts({0, 0, 1, 1, 1}, [&](Group& group) {
    Bytes data = distinct_data(group.rank(), kCount, DType::kF32);
    group.broadcast(as_buffer(data, DType::kF32), 1);
    left += group.bytes_sent_between_hosts();
  });
  EXPECT_EQ(left.load(), kCount * 4);
}

}  // namespace
}  // namespace trireme

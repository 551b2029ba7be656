// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/message/message_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/memory_port.h"
#include "tests/support/ranks.h"
#include "tests/support/reference_tree.h"
#include "trireme/comm/group_arguments.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::MessageTable;
using testing::reference_reduce;

constexpr std::byte kUntouched{0xee};

// One rank of a test: an engine, and buffers where its memory is.
class Rank {
 public:
  Rank(int rank, int n, MessageTable& table, bool device, const std::vector<std::string>& hosts)
      : scope_(testing::table_scope(rank, n, hosts)),
        engine_(testing::make_table_engine(scope_, table, device)),
        device_(device) {}

  int rank() const { return scope_.rank; }
  std::size_t index() const { return static_cast<std::size_t>(scope_.rank); }
  int size() const { return scope_.size(); }
  Engine& engine() { return *engine_; }
  detail::Caller caller() const { return {rank(), size()}; }

  Buffer buffer(Bytes& bytes, DType dtype, std::int64_t offset = 0, std::int64_t count = -1) const {
    const std::size_t element = dtype_bytes(dtype);
    std::byte* at = bytes.data() + static_cast<std::size_t>(offset) * element;
    if (count < 0) count = static_cast<std::int64_t>(bytes.size() / element) - offset;
    return {device_ ? testing::on_device(at) : at, count, dtype};
  }
  void run(Collective collective) {
    collective.signature.sequence = ++sequence_;
    engine_->run(collective, Deadline::after(testing::kTestDeadline));
  }

 private:
  GroupScope scope_;
  std::unique_ptr<Engine> engine_;
  bool device_;
  std::uint64_t sequence_ = 0;
};

void run_ranks(int n, bool device, const std::function<void(Rank&)>& body,
               const std::vector<std::string>& hosts = {}) {
  MessageTable table;
  testing::run_rank_threads(n, [&](int rank) {
    Rank self(rank, n, table, device, hosts);
    body(self);
  });
}

std::int64_t total(const std::vector<std::int64_t>& counts) {
  std::int64_t sum = 0;
  for (const std::int64_t count : counts) sum += count;
  return sum;
}

std::size_t size_of(std::int64_t count, DType dtype) {
  return static_cast<std::size_t>(count) * dtype_bytes(dtype);
}

Bytes part(const Bytes& bytes, std::int64_t offset, std::int64_t count, DType dtype) {
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(size_of(offset, dtype));
  return {begin, begin + static_cast<std::ptrdiff_t>(size_of(count, dtype))};
}

class MessageEngineTest : public ::testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  int n() const { return std::get<0>(GetParam()); }
  bool device() const { return std::get<1>(GetParam()); }

  // Uneven counts, some of them zero, of up to `most` elements.
  std::vector<std::int64_t> uneven(std::int64_t most) const {
    std::vector<std::int64_t> counts;
    for (int rank = 0; rank < n(); ++rank) {
      counts.push_back(rank % 3 == 1 ? 0 : most * (rank + 1) / n());
    }
    return counts;
  }
  std::vector<Bytes> inputs(std::int64_t count, DType dtype) const {
    std::vector<Bytes> all;
    for (int rank = 0; rank < n(); ++rank) all.push_back(distinct_data(rank, count, dtype));
    return all;
  }
};

// Small, and of several steps.
constexpr std::int64_t kCounts[] = {0, 1, 517, 30011, 1200007};

TEST_P(MessageEngineTest, AllReduceAndReduce) {
  for (const auto& [dtype, count] :
       {std::pair(DType::kBF16, 0), std::pair(DType::kBF16, 1), std::pair(DType::kF32, 517),
        std::pair(DType::kBF16, 30011), std::pair(DType::kF64, 1200007)}) {
    const std::vector<Bytes> all = inputs(count, dtype);
    const Bytes expected = reference_reduce(all, dtype, ReduceOp::kMean);
    run_ranks(n(), device(), [&, dtype = dtype, count = count](Rank& rank) {
      Bytes data = all[rank.index()];
      rank.run(detail::all_reduce_of(rank.buffer(data, dtype), ReduceOp::kMean));
      EXPECT_TRUE(data == expected) << count;
      const int root = n() - 1;
      data = all[rank.index()];
      rank.run(detail::reduce_of(rank.caller(), rank.buffer(data, dtype), root, ReduceOp::kMean));
      EXPECT_TRUE(data == (rank.rank() == root ? expected : all[rank.index()])) << count;
    });
  }
}

TEST_P(MessageEngineTest, ReduceScatterOfUnevenBlocks) {
  for (const std::int64_t most : kCounts) {
    const std::vector<std::int64_t> counts = uneven(most);
    const std::vector<Bytes> all = inputs(total(counts), DType::kF16);
    const Bytes sum = reference_reduce(all, DType::kF16, ReduceOp::kSum);
    run_ranks(n(), device(), [&](Rank& rank) {
      const Block own = blocks_of(counts)[rank.index()];
      const Bytes expected = part(sum, own.offset, own.count, DType::kF16);
      Bytes input = all[rank.index()];
      Bytes output(expected.size(), kUntouched);
      rank.run(detail::reduce_scatter_of(rank.caller(), rank.buffer(input, DType::kF16),
                                         rank.buffer(output, DType::kF16), ReduceOp::kSum, counts));
      EXPECT_TRUE(output == expected) << most;
      EXPECT_TRUE(input == all[rank.index()]);
      rank.run(detail::reduce_scatter_of(rank.caller(), rank.buffer(input, DType::kF16),
                                         rank.buffer(input, DType::kF16, own.offset, own.count),
                                         ReduceOp::kSum, counts));
      EXPECT_TRUE(part(input, own.offset, own.count, DType::kF16) == expected) << "in place";
    });
  }
}

TEST_P(MessageEngineTest, Broadcast) {
  for (const std::int64_t count : {0, 3, 30011, 70001, 3000017}) {
    const std::vector<Bytes> all = inputs(count, DType::kF32);
    run_ranks(n(), device(), [&](Rank& rank) {
      for (const int root : {0, n() - 1}) {
        Bytes data = all[rank.index()];
        rank.run(detail::broadcast_of(rank.caller(), rank.buffer(data, DType::kF32), root));
        EXPECT_TRUE(data == all[static_cast<std::size_t>(root)]) << count << " from " << root;
      }
    });
  }
}

TEST_P(MessageEngineTest, GathersAndScattersUnevenBlocks) {
  for (const std::int64_t most : kCounts) {
    const std::vector<std::int64_t> counts = uneven(most);
    const Bytes whole = distinct_data(n(), total(counts), DType::kF64);
    run_ranks(n(), device(), [&](Rank& rank) {
      const Block block = blocks_of(counts)[rank.index()];
      const Bytes own = part(whole, block.offset, block.count, DType::kF64);
      Bytes input = own;
      Bytes output(whole.size(), kUntouched);
      rank.run(detail::all_gather_of(rank.caller(), rank.buffer(input, DType::kF64),
                                     rank.buffer(output, DType::kF64), counts));
      EXPECT_TRUE(output == whole) << most;
      std::fill(output.begin(), output.end(), kUntouched);
      std::copy(own.begin(), own.end(),
                output.begin() + static_cast<std::ptrdiff_t>(size_of(block.offset, DType::kF64)));
      const Buffer place = rank.buffer(output, DType::kF64, block.offset, block.count);
      rank.run(
          detail::all_gather_of(rank.caller(), place, rank.buffer(output, DType::kF64), counts));
      EXPECT_TRUE(output == whole) << "in place, " << most;

      const int root = n() / 2;
      const Bytes untouched(whole.size(), kUntouched);
      output = untouched;
      rank.run(detail::gather_of(rank.caller(), rank.buffer(input, DType::kF64),
                                 rank.buffer(output, DType::kF64), root, counts));
      EXPECT_TRUE(output == (rank.rank() == root ? whole : untouched)) << "gather " << most;
      Bytes all = rank.rank() == root ? whole : untouched;
      Bytes mine(own.size(), kUntouched);
      rank.run(detail::scatter_of(rank.caller(), rank.buffer(all, DType::kF64),
                                  rank.buffer(mine, DType::kF64), root, counts));
      EXPECT_TRUE(mine == own) << "scatter " << most;
    });
  }
}

// What `from` sends to `to`.
std::int64_t pair_count(int from, int to, std::int64_t most) {
  return (from + 2 * to) % 3 == 0 ? 0 : most / (from + to + 1);
}

TEST_P(MessageEngineTest, AllToAllOfUnevenBlocks) {
  for (const std::int64_t most : kCounts) {
    run_ranks(n(), device(), [&](Rank& rank) {
      std::vector<std::int64_t> out_counts;
      std::vector<std::int64_t> in_counts;
      Bytes input;
      Bytes expected;
      for (int peer = 0; peer < n(); ++peer) {
        out_counts.push_back(pair_count(rank.rank(), peer, most));
        in_counts.push_back(pair_count(peer, rank.rank(), most));
        const Bytes out = distinct_data(rank.rank() * n() + peer, out_counts.back(), DType::kI32);
        const Bytes in = distinct_data(peer * n() + rank.rank(), in_counts.back(), DType::kI32);
        input.insert(input.end(), out.begin(), out.end());
        expected.insert(expected.end(), in.begin(), in.end());
      }
      Bytes output(expected.size(), kUntouched);
      rank.run(detail::all_to_all_of(rank.caller(), rank.buffer(input, DType::kI32),
                                     rank.buffer(output, DType::kI32), out_counts, in_counts));
      EXPECT_TRUE(output == expected) << most;
    });
  }
}

// Blocks in another order than the ranks', with gaps, which nobody touches.
TEST_P(MessageEngineTest, BlocksMayHaveGaps) {
  for (const std::int64_t count : {5, 40013}) {
    const std::int64_t stride = count + 3;
    std::vector<Block> blocks;
    for (int rank = 0; rank < n(); ++rank) blocks.push_back({(n() - 1 - rank) * stride + 1, count});
    const std::int64_t all_count = n() * stride;
    const std::vector<Bytes> all = inputs(all_count, DType::kF32);
    const Bytes sum = reference_reduce(all, DType::kF32, ReduceOp::kSum);
    Bytes gathered(size_of(all_count, DType::kF32), kUntouched);
    for (int rank = 0; rank < n(); ++rank) {
      const Bytes own = distinct_data(rank, count, DType::kF32);
      std::copy(
          own.begin(), own.end(),
          gathered.begin() + static_cast<std::ptrdiff_t>(size_of(
                                 blocks[static_cast<std::size_t>(rank)].offset, DType::kF32)));
    }
    run_ranks(n(), device(), [&](Rank& rank) {
      const Block& own = blocks[rank.index()];
      Bytes input = all[rank.index()];
      Bytes output(size_of(count, DType::kF32));
      Collective reduce;
      reduce.signature.kind = CollectiveKind::kReduceScatter;
      reduce.signature.count = n() * count;
      reduce.input = rank.buffer(input, DType::kF32);
      reduce.output = rank.buffer(output, DType::kF32);
      reduce.blocks = blocks;
      rank.run(reduce);
      EXPECT_TRUE(output == part(sum, own.offset, own.count, DType::kF32));

      Bytes mine = distinct_data(rank.rank(), count, DType::kF32);
      Bytes everything(gathered.size(), kUntouched);
      Collective gather = reduce;
      gather.signature.kind = CollectiveKind::kAllGather;
      gather.input = rank.buffer(mine, DType::kF32);
      gather.output = rank.buffer(everything, DType::kF32);
      rank.run(gather);
      EXPECT_TRUE(everything == gathered);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Memories, MessageEngineTest,
                         ::testing::Combine(::testing::Values(2, 3, 5, 8), ::testing::Bool()),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) +
                                  (std::get<1>(test.param) ? "_device" : "_host");
                         });

// Ranks 0 and 2 together hold 7 leaves as nodes, rank 1 none; what comes out finished is the whole
// tree, and what comes out unrounded can be reduced on to the same bits.
TEST(MessageEngine, ReducesNodesOfALargerTree) {
  constexpr int kLeaves = 7;
  for (const std::int64_t count : {11, 400009}) {
    for (const bool device : {false, true}) {
      std::vector<Bytes> leaves;
      for (int leaf = 0; leaf < kLeaves; ++leaf) {
        leaves.push_back(distinct_data(leaf, 3 * count, DType::kBF16));
      }
      const Bytes mean = reference_reduce(leaves, DType::kBF16, ReduceOp::kMean);
      // Unrounded nodes of the leaves.
      const auto node = [&](const TreeNode& of) {
        std::vector<const void*> inputs;
        std::vector<TreeNode> nodes;
        for (int leaf = of.begin; leaf < of.end; ++leaf) {
          inputs.push_back(leaves[static_cast<std::size_t>(leaf)].data());
          nodes.push_back({leaf, leaf + 1});
        }
        Bytes out(size_of(3 * count, DType::kF32));
        reduce_nodes({kLeaves, nodes, DType::kBF16, DType::kF32, ReduceOp::kMean, false}, inputs,
                     out.data(), 3 * count);
        return out;
      };
      PartialReduction partial;
      partial.leaves = kLeaves;
      partial.inputs = {{{0, 2}, {6, 7}}, {}, {{2, 4}, {4, 6}}};
      partial.input_stride = 3 * count;
      run_ranks(3, device, [&](Rank& rank) {
        Bytes input;
        for (const TreeNode& of : partial.inputs[rank.index()]) {
          const Bytes vector = node(of);
          input.insert(input.end(), vector.begin(), vector.end());
        }
        Collective collective;
        collective.signature.kind = CollectiveKind::kReduceScatter;
        collective.signature.op = ReduceOp::kMean;
        collective.signature.dtype = DType::kBF16;
        collective.signature.count = 3 * count;
        collective.blocks = equal_blocks(3, count);
        collective.input = rank.buffer(input, DType::kF32);

        PartialReduction finishing = partial;
        finishing.outputs = {{0, kLeaves}};
        finishing.finish = true;
        Bytes finished(size_of(count, DType::kBF16));
        collective.output = rank.buffer(finished, DType::kBF16);
        collective.partial = &finishing;
        rank.run(collective);
        EXPECT_TRUE(finished == part(mean, rank.rank() * count, count, DType::kBF16)) << count;

        PartialReduction going_on = partial;
        going_on.outputs = {{0, 4}, {4, 7}};
        going_on.output_stride = count + 1;
        Bytes halves(size_of(2 * count + 1, DType::kF32), kUntouched);
        collective.output = rank.buffer(halves, DType::kF32, 0, count);
        collective.partial = &going_on;
        rank.run(collective);
        const Bytes left = part(node({0, 4}), rank.rank() * count, count, DType::kF32);
        EXPECT_TRUE(part(halves, 0, count, DType::kF32) == left) << count;
        const Bytes right = part(halves, count + 1, count, DType::kF32);
        const std::vector<const void*> inputs{left.data(), right.data()};
        const std::vector<TreeNode> nodes{{0, 4}, {4, 7}};
        Bytes whole(size_of(count, DType::kBF16));
        reduce_nodes({kLeaves, nodes, DType::kF32, DType::kBF16, ReduceOp::kMean, true}, inputs,
                     whole.data(), count);
        EXPECT_TRUE(whole == finished) << count;
      });
    }
  }
}

}  // namespace
}  // namespace trireme

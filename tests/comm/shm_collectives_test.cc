// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the shm engine does below Group: blocks with gaps, reduce_scatter inside a larger tree.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <tuple>
#include <vector>

#include "tests/support/shm_ranks.h"
#include "trireme/comm/reduction_tree.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::run_shm_threads;
using testing::ShmRank;

constexpr std::byte kUntouched{0xee};

Bytes slice(const Bytes& bytes, std::int64_t begin, std::int64_t count) {
  const auto from = bytes.begin() + begin * 4;
  return {from, from + count * 4};
}
void put(Bytes& bytes, std::int64_t begin, const Bytes& part) {
  std::copy(part.begin(), part.end(), bytes.begin() + begin * 4);
}
Bytes untouched(std::int64_t count) {
  return Bytes(static_cast<std::size_t>(count) * 4, kUntouched);
}

// Uneven blocks, one of them empty, in an order that is not the ranks', with gaps; the largest
// takes several slices.
std::vector<Block> scattered_blocks(int n, std::int64_t largest) {
  std::vector<Block> blocks(static_cast<std::size_t>(n));
  std::int64_t at = 5;
  for (int rank = n - 1; rank >= 0; --rank) {
    const std::int64_t count = rank == 1 ? 0 : rank == n / 2 ? largest : 37 + 3 * rank;
    blocks[static_cast<std::size_t>(rank)] = {at, count};
    at += count + 7;
  }
  return blocks;
}
std::int64_t extent(const std::vector<Block>& blocks) {
  std::int64_t end = 0;
  for (const Block& block : blocks) end = std::max(end, block.offset + block.count);
  return end + 11;
}

// Ranks, and whether what they have for others can be reached by those.
class ShmCollectives : public ::testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  int size() const { return std::get<0>(GetParam()); }
  bool shared() const { return std::get<1>(GetParam()); }
  static Collective collective(CollectiveKind kind, int root = -1) {
    Collective result;
    result.signature.kind = kind;
    result.signature.root = root;
    result.signature.dtype = DType::kF32;
    return result;
  }
};

TEST_P(ShmCollectives, GatherAndAllGatherLeaveGapsAlone) {
  const std::vector<Block> blocks = scattered_blocks(size(), 300007);
  Bytes expected = untouched(extent(blocks));
  std::vector<Bytes> inputs;
  for (int rank = 0; rank < size(); ++rank) {
    const Block& block = blocks[static_cast<std::size_t>(rank)];
    inputs.push_back(distinct_data(rank, block.count, DType::kF32));
    put(expected, block.offset, inputs.back());
  }
  run_shm_threads(size(), [&](ShmRank& rank) {
    const Bytes& input = inputs[static_cast<std::size_t>(rank.rank())];
    const std::byte* from = rank.place(input, shared());
    for (const int root : {-1, 0, size() - 1}) {
      const bool wants = root < 0 || root == rank.rank();
      Collective gather =
          collective(root < 0 ? CollectiveKind::kAllGather : CollectiveKind::kGather, root);
      Bytes output = untouched(extent(blocks));
      gather.blocks = blocks;
      gather.input = ConstBuffer(from, static_cast<std::int64_t>(input.size() / 4), DType::kF32);
      if (wants) gather.output = {output.data(), extent(blocks), DType::kF32};
      rank.run(gather);
      EXPECT_TRUE(output == (wants ? expected : untouched(extent(blocks)))) << "root " << root;
    }
  });
}

TEST_P(ShmCollectives, ScatterReadsBlocksWithGaps) {
  const std::vector<Block> blocks = scattered_blocks(size(), 300007);
  for (int root = 0; root < size(); ++root) {
    const Bytes input = distinct_data(root, extent(blocks), DType::kF32);
    run_shm_threads(size(), [&](ShmRank& rank) {
      const Block& own = blocks[static_cast<std::size_t>(rank.rank())];
      Bytes output = untouched(own.count);
      Collective scatter = collective(CollectiveKind::kScatter, root);
      scatter.blocks = blocks;
      const std::byte* from = rank.place(input, shared());
      if (rank.rank() == root) scatter.input = ConstBuffer(from, extent(blocks), DType::kF32);
      scatter.output = {output.data(), own.count, DType::kF32};
      rank.run(scatter);
      EXPECT_TRUE(output == slice(input, own.offset, own.count)) << "root " << root;
    });
  }
}

TEST_P(ShmCollectives, AllToAllWithGapsOnBothSides) {
  const auto count = [](int from, int to) -> std::int64_t {
    if (from == 0 && to == 1) return 300007;
    return from == to + 1 ? 0 : 13 + 5 * from + 11 * to;
  };
  run_shm_threads(size(), [&](ShmRank& rank) {
    const int me = rank.rank();
    Collective all = collective(CollectiveKind::kAllToAll);
    all.signature.count = -1;
    std::int64_t in_at = 3;
    std::int64_t out_at = 9;
    for (int peer = 0; peer < size(); ++peer) {
      all.send_blocks.push_back({in_at, count(me, peer)});
      all.blocks.push_back({out_at, count(peer, me)});
      in_at += count(me, peer) + 2;
      out_at += count(peer, me) + 4;
    }
    Bytes input = untouched(in_at);
    Bytes output = untouched(out_at);
    Bytes expected = output;
    for (int peer = 0; peer < size(); ++peer) {
      const auto i = static_cast<std::size_t>(peer);
      put(input, all.send_blocks[i].offset,
          distinct_data(me * 8 + peer, all.send_blocks[i].count, DType::kF32));
      put(expected, all.blocks[i].offset,
          distinct_data(peer * 8 + me, all.blocks[i].count, DType::kF32));
    }
    all.input = ConstBuffer(rank.place(input, shared()), in_at, DType::kF32);
    all.output = {output.data(), out_at, DType::kF32};
    rank.run(all);
    EXPECT_TRUE(output == expected);
  });
}

// Leaves are dealt to ranks in turn, so that a rank brings several nodes and outputs are nodes to
// which several ranks contribute. Against one reduce_nodes() over everything.
TEST_P(ShmCollectives, PartialReduceScatterIsTheLargerTree) {
  const int n = size();
  const int leaves = 2 * n + 1;
  for (const bool finish : {false, true}) {
    PartialReduction partial;
    partial.leaves = leaves;
    partial.inputs.resize(static_cast<std::size_t>(n));
    for (int leaf = 0; leaf < leaves; ++leaf) {
      partial.inputs[static_cast<std::size_t>(leaf % n)].push_back({leaf, leaf + 1});
    }
    const int middle = tree_split(0, leaves);
    partial.outputs = finish ? std::vector<TreeNode>{{0, leaves}}
                             : std::vector<TreeNode>{{0, middle}, {middle, leaves}};
    partial.finish = finish;
    const std::vector<Block> blocks = scattered_blocks(n, 150011);
    partial.input_stride = extent(blocks) + 1;
    partial.output_stride = 150013;
    run_shm_threads(n, [&](ShmRank& rank) {
      const auto me = static_cast<std::size_t>(rank.rank());
      const auto data = [&](int leaf) { return distinct_data(leaf, extent(blocks), DType::kBF16); };
      Bytes input(static_cast<std::size_t>(partial.input_stride) * 2 * partial.inputs[me].size());
      for (std::size_t v = 0; v < partial.inputs[me].size(); ++v) {
        const Bytes vector = data(partial.inputs[me][v].begin);
        std::copy(vector.begin(), vector.end(),
                  input.begin() + static_cast<std::ptrdiff_t>(v) * partial.input_stride * 2);
      }
      const DType out_dtype = finish ? DType::kBF16 : DType::kF32;
      const std::size_t out_bytes = dtype_bytes(out_dtype);
      const auto outputs = static_cast<std::int64_t>(partial.outputs.size());
      Bytes output(static_cast<std::size_t>(outputs * partial.output_stride) * out_bytes,
                   kUntouched);
      Bytes expected = output;
      const Block& own = blocks[me];
      for (std::size_t o = 0; o < partial.outputs.size(); ++o) {
        std::vector<Bytes> all;
        std::vector<TreeNode> nodes;
        for (int leaf = partial.outputs[o].begin; leaf < partial.outputs[o].end; ++leaf) {
          all.push_back(data(leaf));
          nodes.push_back({leaf, leaf + 1});
        }
        std::vector<const void*> addresses;
        for (const Bytes& each : all) addresses.push_back(each.data() + own.offset * 2);
        reduce_nodes(
            {leaves, nodes, DType::kBF16, out_dtype, ReduceOp::kMean, finish}, addresses,
            expected.data() + o * static_cast<std::size_t>(partial.output_stride) * out_bytes,
            own.count);
      }
      Collective scatter = collective(CollectiveKind::kReduceScatter);
      scatter.signature.op = ReduceOp::kMean;
      scatter.signature.dtype = DType::kBF16;
      scatter.blocks = blocks;
      scatter.partial = &partial;
      scatter.input = ConstBuffer(rank.place(input, shared()),
                                  static_cast<std::int64_t>(input.size() / 2), DType::kBF16);
      scatter.output = {output.data(), outputs * partial.output_stride, out_dtype};
      rank.run(scatter);
      EXPECT_TRUE(output == expected) << "finish " << finish << " rank " << me;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, ShmCollectives,
                         ::testing::Combine(::testing::Range(2, 9), ::testing::Bool()));

}  // namespace
}  // namespace trireme

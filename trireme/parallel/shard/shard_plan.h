// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ShardPlan: which ranks hold one copy of a sharded model between them, and who computes which
// micro-batch there.
//
// Ranks side by side form a shard group (the ranks of a host, say); every shard group holds a whole
// copy. The ranks that hold the same pieces in their groups form a replica group: gradients are
// summed inside the shard group first, and what crosses between replicas is a rank's piece alone.
//
//   6 ranks, 2 to a shard group:   shard groups {0 1} {2 3} {4 5}    replica groups {0 2 4} {1 3 5}
//
// A shard group is a node of the tree over ranks (a power of two, or all), so that the sum is
// associated as without groups: the bits do not depend on the plan.
//
//   const ShardPlan plan(6, 2);
//   plan.replica_group(4);     // {0 2 4}
#pragma once

#include <cstdint>
#include <vector>

namespace trireme {

// As shard_ranks: those of one host.
inline constexpr int kHostRanks = -1;

// What kHostRanks stands for among ranks on these hosts (Group::hosts()). Pure. Throws ConfigError,
// with the numbers of ranks: hosts that have different ones; several that have each no power of
// two; ranks of a host that are not side by side.
int host_shard_ranks(const std::vector<int>& hosts);

// Pure. Constant after construction.
class ShardPlan {
 public:
  // shard_ranks: of a shard group, 0: all. Throws ConfigError: below 0; more than ranks or no
  // divisor of them; not all of them and no power of two.
  ShardPlan(int ranks, std::int64_t shard_ranks);

  int ranks() const { return ranks_; }
  int shard_ranks() const { return shard_ranks_; }
  int replicas() const { return ranks_ / shard_ranks_; }
  // Which copy the rank belongs to, and its place there, which is also that of its pieces.
  int replica_of(int rank) const { return rank / shard_ranks_; }
  int index_of(int rank) const { return rank % shard_ranks_; }
  // Ascending, the rank among them.
  std::vector<int> shard_group(int rank) const;
  std::vector<int> replica_group(int rank) const;

  // Who computes what where each micro-batch's gradients are scattered at once (stages 2 and 3), by
  // round, the last round first, in order. In a round every shard group sums the same power of two
  // of consecutive micro-batches (any number where there is one group), S of its ranks S at a time;
  // then the replicas' sums are added:
  //
  //   4 ranks, 2 to a shard group, 8 micro-batches:   rank 0 {0 2}  rank 1 {1 3}  rank 2 {4 6} ...
  //
  // micro_batches 0: one for each rank. Throws ConfigError for micro-batches that the ranks cannot
  // share in this way: the ranks must divide them; and one group needs a power of two of ranks or a
  // micro-batch for each, several groups what MicroBatchPlan asks for.
  std::vector<std::vector<std::int64_t>> rounds(std::int64_t micro_batches, int rank) const;

 private:
  int ranks_;
  int shard_ranks_;
};

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/operations.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

#include "trireme/base/error.h"

namespace trireme {
namespace {

constexpr std::int64_t kPeriod = 4093;  // prime
constexpr int kRoot = 0;

using Shape = const BenchShape&;
using Pattern = const BenchPattern&;

std::int64_t whole(Shape s) { return s.count; }
std::int64_t block(Shape s) { return s.block(); }
std::int64_t whole_at_root(Shape s) { return s.rank == kRoot ? s.count : 0; }
std::int64_t none(Shape) { return 0; }

double sum(Pattern p, Shape, std::int64_t i) { return p.sum(i); }
double own_block_of_sum(Pattern p, Shape s, std::int64_t i) {
  return p.sum(s.rank * s.block() + i);
}
double sum_at_root(Pattern p, Shape s, std::int64_t i) {
  return s.rank == kRoot ? p.sum(i) : p.value(s.rank, i);
}
double block_of_each(Pattern p, Shape s, std::int64_t i) {
  return p.value(static_cast<int>(i / s.block()), i % s.block());
}
double own_block_of_each(Pattern p, Shape s, std::int64_t i) {
  return p.value(static_cast<int>(i / s.block()), s.rank * s.block() + i % s.block());
}
double from_root(Pattern p, Shape, std::int64_t i) { return p.value(kRoot, i); }
double own_block_of_root(Pattern p, Shape s, std::int64_t i) {
  return p.value(kRoot, s.rank * s.block() + i);
}
double from_left(Pattern p, Shape s, std::int64_t i) {
  return p.value((s.rank + s.ranks - 1) % s.ranks, i);
}
double nothing(Pattern, Shape, std::int64_t) { return 0; }

double share_of_others(int n) { return (n - 1.0) / n; }
double there_and_back(int n) { return 2 * share_of_others(n); }
double one(int) { return 1; }
double zero(int) { return 0; }

double once_each_way(int) { return 2; }
double once_per_rank(int n) { return n; }
double once_per_rank_and_one(int n) { return n + 1.0; }
double twice_per_rank(int n) { return 2.0 * n; }

using enum BenchOp;
constexpr BenchOperation kOperations[] = {
    {kAllReduce, "all_reduce", true, false, whole, whole, sum, there_and_back, twice_per_rank},
    {kReduceScatter, "reduce_scatter", false, true, whole, block, own_block_of_sum, share_of_others,
     once_per_rank_and_one},
    {kAllGather, "all_gather", false, true, block, whole, block_of_each, share_of_others,
     once_per_rank_and_one},
    {kAllToAll, "all_to_all", false, true, whole, whole, own_block_of_each, share_of_others,
     twice_per_rank},
    {kBroadcast, "broadcast", true, false, whole, whole, from_root, one, once_per_rank},
    {kReduce, "reduce", true, false, whole, whole, sum_at_root, one, once_per_rank_and_one},
    {kGather, "gather", false, true, block, whole_at_root, block_of_each, share_of_others,
     once_each_way},
    {kScatter, "scatter", false, true, whole_at_root, block, own_block_of_root, share_of_others,
     once_each_way},
    {kSendRecv, "send_recv", false, false, whole, whole, from_left, one, twice_per_rank},
    {kBarrier, "barrier", true, false, none, none, nothing, zero, zero},
};

}  // namespace

BenchPattern::BenchPattern(int ranks) : sums_(kPeriod) {
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<std::int8_t>& own = values_.emplace_back(kPeriod);
    for (std::size_t i = 0; i < own.size(); ++i) {
      // The upper bits of a product with a large odd number are well mixed (Knuth, TAOCP 3, 6.4).
      const std::uint64_t mixed =
          (i + 1 + static_cast<std::uint64_t>(rank) * 8191) * 0x9e3779b97f4a7c15U;
      own[i] = static_cast<std::int8_t>(static_cast<int>(mixed >> 60) - 8);
      sums_[i] += own[i];
    }
  }
}

double BenchPattern::value(int rank, std::int64_t i) const {
  return values_[static_cast<std::size_t>(rank)][static_cast<std::size_t>(i % kPeriod)];
}

double BenchPattern::sum(std::int64_t i) const {
  return sums_[static_cast<std::size_t>(i % kPeriod)];
}

std::span<const BenchOperation> bench_operations() { return kOperations; }

const BenchOperation& find_bench_operation(std::string_view name) {
  std::vector<std::string_view> known;
  for (const BenchOperation& operation : kOperations) {
    if (operation.name == name) return operation;
    known.push_back(operation.name);
  }
  throw_error<ConfigError>("there is no operation '{}'; the operations are {}", name,
                           fmt::join(known, ", "));
}

}  // namespace trireme

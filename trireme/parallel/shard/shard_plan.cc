// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/shard_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <string>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/parallel/micro_batch_plan.h"

namespace trireme {
namespace {

bool is_power_of_two(int n) { return std::has_single_bit(static_cast<unsigned>(n)); }

bool fits(int ranks, std::int64_t shard_ranks) {
  return shard_ranks > 0 && ranks % shard_ranks == 0 &&
         (shard_ranks == ranks || is_power_of_two(static_cast<int>(shard_ranks)));
}

void check_one_group(std::int64_t micro_batches, int ranks) {
  if (micro_batches % ranks == 0 && (micro_batches == ranks || is_power_of_two(ranks))) return;
  throw_error<ConfigError>(
      "{} ranks cannot share {} micro-batches a step in ZeRO stages 2 and 3: use a number of "
      "ranks that is a power of two and divides them, {} micro-batches, or stage 1",
      ranks, micro_batches, ranks);
}

// "63 with 8, 1 with 7": hosts by their number of ranks.
std::string in_words(const std::vector<int>& counts) {
  std::map<int, int, std::greater<>> hosts;
  for (const int count : counts) ++hosts[count];
  std::vector<std::string> words;
  for (const auto& [count, number] : hosts) {
    words.push_back(fmt::format("{} with {}", number, count));
  }
  return fmt::format("{}", fmt::join(words, ", "));
}

}  // namespace

int host_shard_ranks(const std::vector<int>& hosts) {
  TRIREME_CHECK_LE(std::size_t{1}, hosts.size(), "there are ranks");
  std::vector<int> counts(static_cast<std::size_t>(*std::ranges::max_element(hosts)) + 1, 0);
  for (const int host : hosts) ++counts[static_cast<std::size_t>(host)];
  const int count = counts.front();
  if (std::ranges::count(counts, count) != std::ssize(counts)) {
    throw_error<ConfigError>(
        "shard_ranks is auto, but the hosts have different numbers of ranks ({}): start equally "
        "many on each, or give shard_ranks a number",
        in_words(counts));
  }
  if (counts.size() > 1 && !is_power_of_two(count)) {
    throw_error<ConfigError>(
        "shard_ranks is auto, but each of the {} hosts has {} ranks, which is no power of two: "
        "start 1, 2, 4, ... on each, or give shard_ranks a number",
        counts.size(), count);
  }
  // Hosts are numbered by their lowest rank.
  if (const auto back = std::ranges::is_sorted_until(hosts); back != hosts.end()) {
    throw_error<ConfigError>(
        "shard_ranks is auto, but ranks {} and {} share a host and rank {} between them is on "
        "another: number the {} ranks of each host one after the other, or give shard_ranks a "
        "number",
        std::ranges::find(hosts, *back) - hosts.begin(), back - hosts.begin(),
        back - hosts.begin() - 1, count);
  }
  return count;
}

ShardPlan::ShardPlan(int ranks, std::int64_t shard_ranks)
    : ranks_(ranks), shard_ranks_(shard_ranks == 0 ? ranks : static_cast<int>(shard_ranks)) {
  TRIREME_CHECK_LE(1, ranks, "a plan has ranks");
  if (shard_ranks == 0 || fits(ranks, shard_ranks)) return;
  std::vector<int> fitting;
  for (int n = 1; n <= ranks; ++n) {
    if (fits(ranks, n)) fitting.push_back(n);
  }
  throw_error<ConfigError>(
      "{} ranks cannot hold copies of a model on {} ranks each: shard_ranks must divide the ranks "
      "and be a power of two or all of them; use {}",
      ranks, shard_ranks, fmt::join(fitting, ", "));
}

std::vector<int> ShardPlan::shard_group(int rank) const {
  std::vector<int> result;
  for (int i = 0; i < shard_ranks_; ++i) result.push_back(replica_of(rank) * shard_ranks_ + i);
  return result;
}

std::vector<int> ShardPlan::replica_group(int rank) const {
  std::vector<int> result;
  for (int r = index_of(rank); r < ranks_; r += shard_ranks_) result.push_back(r);
  return result;
}

std::vector<std::vector<std::int64_t>> ShardPlan::rounds(std::int64_t micro_batches,
                                                         int rank) const {
  if (micro_batches == 0) micro_batches = ranks_;
  std::vector<MicroBatchRange> of_group;
  if (replicas() == 1) {
    check_one_group(micro_batches, ranks_);
    of_group = {{0, micro_batches}};
  } else {
    const MicroBatchPlan all_can_share(micro_batches, ranks_);
    of_group = MicroBatchPlan(micro_batches, replicas()).rounds(replica_of(rank));
    std::reverse(of_group.begin(), of_group.end());
  }
  std::vector<std::vector<std::int64_t>> result;
  for (const MicroBatchRange& round : of_group) {
    std::vector<std::int64_t>& own = result.emplace_back();
    for (std::int64_t m = round.begin + index_of(rank); m < round.end; m += shard_ranks_) {
      own.push_back(m);
    }
  }
  return result;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/bucket_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Order = std::vector<std::size_t>;

constexpr std::int64_t kAlignment = 64;

std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

struct Layout {
  std::vector<FlatEntry> entries;
  std::int64_t size = 0;
};

// Entries one after the other as make_layout() lays them out; unit_ends: after which a unit ends.
Layout lay_out(const std::vector<std::int64_t>& counts, const std::vector<bool>& unit_ends = {}) {
  Layout layout;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    layout.entries.push_back({"e" + std::to_string(i), {counts[i]}, layout.size, counts[i]});
    layout.size += round_up(counts[i], kAlignment);
    if (i < unit_ends.size() && unit_ends[i]) layout.size = round_up(layout.size, kShardBlock);
  }
  layout.size = round_up(layout.size, kShardBlock);
  return layout;
}

std::vector<std::pair<std::int64_t, std::int64_t>> blocks_of(
    const std::vector<FlatSegment>& buckets) {
  std::vector<std::pair<std::int64_t, std::int64_t>> blocks;
  for (const FlatSegment& bucket : buckets) {
    blocks.emplace_back(bucket.begin / kShardBlock, bucket.end / kShardBlock);
  }
  return blocks;
}

Layout any_layout() {
  const auto counts =
      *rc::gen::nonEmpty(rc::gen::container<std::vector<std::int64_t>>(rc::gen::oneOf(
          rc::gen::inRange<std::int64_t>(0, 9), rc::gen::inRange<std::int64_t>(1, 3 * kShardBlock),
          rc::gen::inRange<std::int64_t>(1, 40 * kShardBlock))));
  const auto unit_ends =
      *rc::gen::container<std::vector<bool>>(counts.size(), rc::gen::arbitrary<bool>());
  Layout layout = lay_out(counts, unit_ends);
  // Blocks without any parameter.
  layout.size += *rc::gen::inRange<std::int64_t>(0, 3) * kShardBlock;
  return layout;
}

bool reaches_into(const FlatEntry& entry, const FlatSegment& bucket) {
  for (std::int64_t i : {entry.offset, entry.offset + entry.count - 1, bucket.begin}) {
    const bool in_entry = i >= entry.offset && i < entry.offset + entry.count;
    if (in_entry && i >= bucket.begin && i < bucket.end) return true;
  }
  return false;
}

TEST(MakeBuckets, EndsBucketsAtParameters) {
  const std::int64_t b = kShardBlock;
  EXPECT_THAT(blocks_of(make_buckets(lay_out({3 * b, 3 * b, b}).entries, 7 * b, 2 * b)),
              ElementsAre(std::pair(0, 3), std::pair(3, 6), std::pair(6, 7)));
  const Layout small = lay_out({100, b, 100, 100, b});
  EXPECT_THAT(blocks_of(make_buckets(small.entries, small.size, 1)),
              ElementsAre(std::pair(0, 1), std::pair(1, 2), std::pair(2, 3)));
  const Layout huge = lay_out({5, 7 * b - 64});
  EXPECT_THAT(blocks_of(make_buckets(huge.entries, huge.size, 2 * b)),
              ElementsAre(std::pair(0, 2), std::pair(2, 4), std::pair(4, 7)));
}

TEST(MakeBuckets, CoversTheBufferAtBlocks) {
  EXPECT_TRUE(rc::check([] {
    const Layout layout = any_layout();
    const auto least = *rc::gen::inRange<std::int64_t>(1, 9 * kShardBlock);
    const auto buckets = make_buckets(layout.entries, layout.size, least);
    std::int64_t end = 0;
    for (const FlatSegment& bucket : buckets) {
      RC_ASSERT(bucket.begin == end);
      RC_ASSERT(bucket.end > bucket.begin);
      RC_ASSERT(bucket.end % kShardBlock == 0);
      if (bucket.end < layout.size) RC_ASSERT(bucket.end - bucket.begin >= least);
      end = bucket.end;
    }
    RC_ASSERT(end == layout.size);
  }));
}

// One pass: what left after which arrival.
struct Pass {
  Order left;
  Order completed;
};

// Checks that no bucket leaves before all is there that reaches into it.
Pass pass(BucketQueue& queue, const std::vector<FlatEntry>& entries, const Order& arrivals) {
  Pass result;
  std::vector<bool> there(entries.size());
  const auto complete = [&](std::size_t bucket) {
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (!there[i] && reaches_into(entries[i], queue.buckets()[bucket])) return false;
    }
    return true;
  };
  queue.begin();
  for (const std::size_t entry : arrivals) {
    RC_ASSERT(!queue.has_arrived(entry));
    const Order leaving = queue.arrive(entry);
    there[entry] = true;
    RC_ASSERT(queue.has_arrived(entry));
    for (const std::size_t bucket : leaving) RC_ASSERT(complete(bucket));
    result.left.insert(result.left.end(), leaving.begin(), leaving.end());
  }
  const Order rest = queue.finish();
  result.left.insert(result.left.end(), rest.begin(), rest.end());
  result.completed = queue.completion_order();
  return result;
}

Order shuffled(std::size_t n) {
  Order order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = n; i > 1; --i) {
    std::swap(order[i - 1], order[*rc::gen::inRange<std::size_t>(0, i)]);
  }
  return order;
}

TEST(BucketQueue, BucketsLeaveOnceInTheAgreedOrderWhateverArrives) {
  EXPECT_TRUE(rc::check([] {
    const Layout layout = any_layout();
    const auto buckets = make_buckets(layout.entries, layout.size,
                                      *rc::gen::inRange<std::int64_t>(1, 9 * kShardBlock));
    BucketQueue queue(layout.entries, buckets);
    Order agreed(buckets.size());
    std::iota(agreed.rbegin(), agreed.rend(), std::size_t{0});
    for (int round = 0; round < 3; ++round) {
      Order arrivals = shuffled(layout.entries.size());
      arrivals.resize(*rc::gen::inRange<std::size_t>(0, arrivals.size() + 1));
      const Pass seen = pass(queue, layout.entries, arrivals);
      RC_ASSERT(seen.left == agreed);
      Order sorted = seen.completed;
      std::sort(sorted.begin(), sorted.end());
      Order all(buckets.size());
      std::iota(all.begin(), all.end(), std::size_t{0});
      RC_ASSERT(sorted == all);
      agreed = round == 0 ? seen.completed : shuffled(buckets.size());
      queue.set_order(agreed);
    }
  }));
}

// As early as can be: what is complete leaves as soon as what stands before it has left.
TEST(BucketQueue, BucketsLeaveAtOnceInTheLearnedOrder) {
  const std::int64_t b = kShardBlock;
  const Layout layout = lay_out({b, b, b, b});
  BucketQueue queue(layout.entries, make_buckets(layout.entries, layout.size, 1));
  EXPECT_THAT(queue.arrive(3), ElementsAre(3U)) << "from the last to the first";
  EXPECT_THAT(queue.arrive(1), IsEmpty());
  EXPECT_THAT(queue.arrive(2), ElementsAre(2U, 1U));
  EXPECT_THAT(queue.arrive(0), ElementsAre(0U));
  EXPECT_THAT(queue.finish(), IsEmpty());
  EXPECT_THAT(queue.completion_order(), ElementsAre(3U, 1U, 2U, 0U));
  queue.set_order(queue.completion_order());
  queue.begin();
  for (const std::size_t entry : {3U, 1U, 2U, 0U}) {
    EXPECT_THAT(queue.arrive(entry), ElementsAre(entry));
  }
}

TEST(BucketQueue, AParameterOfSeveralBucketsReleasesThemTogether) {
  const std::int64_t b = kShardBlock;
  const Layout layout = lay_out({10, 5 * b, 10});
  BucketQueue queue(layout.entries, make_buckets(layout.entries, layout.size, 2 * b));
  ASSERT_EQ(queue.buckets().size(), 3U);
  EXPECT_THAT(queue.arrive(2), IsEmpty());
  EXPECT_THAT(queue.arrive(1), ElementsAre(2U, 1U));
  EXPECT_THAT(queue.finish(), ElementsAre(0U));
  EXPECT_THAT(queue.completion_order(), ElementsAre(1U, 2U, 0U));
}

TEST(BucketQueue, RefusesWhatItWasNotMadeFor) {
  const Layout layout = lay_out({kShardBlock, kShardBlock});
  BucketQueue queue(layout.entries, make_buckets(layout.entries, layout.size, 1));
  queue.arrive(1);
  EXPECT_THROW(queue.arrive(1), InternalError);
  EXPECT_THROW(queue.set_order({0}), InternalError);
  EXPECT_THROW(queue.set_order({1, 1}), InternalError);
  EXPECT_THROW(queue.set_order({0, 1, 2}), InternalError);
}

}  // namespace
}  // namespace trireme

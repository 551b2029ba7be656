// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/bucket_queue.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "trireme/base/check.h"

namespace trireme {
namespace {

std::int64_t up_to_block(std::int64_t element) {
  return (element + kShardBlock - 1) / kShardBlock * kShardBlock;
}

}  // namespace

std::vector<FlatSegment> make_buckets(std::span<const FlatEntry> entries, std::int64_t size,
                                      std::int64_t min_elements) {
  const std::int64_t least = std::max(up_to_block(min_elements), kShardBlock);
  std::vector<FlatSegment> buckets;
  std::int64_t begin = 0;
  for (const FlatEntry& entry : entries) {
    const std::int64_t end = std::min(up_to_block(entry.offset + entry.count), size);
    while (end - begin >= 2 * least) {
      buckets.push_back({begin, begin + least});
      begin += least;
    }
    if (end - begin >= least) {
      buckets.push_back({begin, end});
      begin = end;
    }
  }
  if (begin < size) buckets.push_back({begin, size});
  return buckets;
}

BucketQueue::BucketQueue(std::span<const FlatEntry> entries, std::vector<FlatSegment> buckets)
    : buckets_(std::move(buckets)),
      buckets_of_(entries.size()),
      entries_in_(buckets_.size()),
      order_(buckets_.size()),
      arrived_(entries.size()) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const FlatEntry& entry = entries[i];
    for (std::size_t b = 0; b < buckets_.size(); ++b) {
      const bool overlaps =
          entry.offset < buckets_[b].end && entry.offset + entry.count > buckets_[b].begin;
      if (!overlaps) continue;
      buckets_of_[i].push_back(b);
      ++entries_in_[b];
    }
  }
  std::iota(order_.rbegin(), order_.rend(), std::size_t{0});
  begin();
}

void BucketQueue::begin() {
  std::fill(arrived_.begin(), arrived_.end(), false);
  missing_ = entries_in_;
  completed_.clear();
  // What lies between units only has no parameter to wait for.
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    if (missing_[b] == 0) completed_.push_back(b);
  }
  next_ = 0;
}

std::vector<std::size_t> BucketQueue::arrive(std::size_t entry) {
  TRIREME_CHECK_EQ(static_cast<bool>(arrived_[entry]), false, "an entry arrives once");
  arrived_[entry] = true;
  for (const std::size_t bucket : buckets_of_[entry]) {
    if (--missing_[bucket] == 0) completed_.push_back(bucket);
  }
  return leave();
}

std::vector<std::size_t> BucketQueue::leave() {
  std::vector<std::size_t> leaving;
  while (next_ < order_.size() && missing_[order_[next_]] == 0) leaving.push_back(order_[next_++]);
  return leaving;
}

std::vector<std::size_t> BucketQueue::finish() {
  std::vector<std::size_t> leaving(order_.begin() + static_cast<std::ptrdiff_t>(next_),
                                   order_.end());
  next_ = order_.size();
  for (const std::size_t bucket : order_) {
    if (missing_[bucket] > 0) completed_.push_back(bucket);
  }
  return leaving;
}

void BucketQueue::set_order(std::vector<std::size_t> order) {
  std::vector<std::size_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    TRIREME_ASSERT(sorted.size() == buckets_.size() && sorted[i] == i,
                   "an order of buckets names each of the {} once", buckets_.size());
  }
  order_ = std::move(order);
}

}  // namespace trireme

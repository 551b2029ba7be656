// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// BucketQueue: which buckets of gradients may leave, while the gradients arrive one by one.
//
// A bucket is a range of the flat buffer. It is complete when every parameter that reaches into it
// has its gradient, and leaves when all buckets before it in the agreed order have left: ranks must
// communicate in one order, whatever the order in which their backward passes go.
//
//   BucketQueue queue(entries, make_buckets(entries, size, bucket_elements));
//   queue.begin();
//   for (...) for (std::size_t bucket : queue.arrive(entry)) send(bucket);
//   for (std::size_t bucket : queue.finish()) send(bucket);      // with parameters that had none
//
// Pure: no tensors, no threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "trireme/optim/flat_layout.h"

namespace trireme {

// Cuts [0, size) at blocks of kShardBlock into buckets of at least min_elements (but the last),
// each ended by the end of a parameter where one is near; a parameter of more than two buckets is
// cut. size: a multiple of kShardBlock.
std::vector<FlatSegment> make_buckets(std::span<const FlatEntry> entries, std::int64_t size,
                                      std::int64_t min_elements);

class BucketQueue {
 public:
  // The order is that of the buckets from the last to the first, in which backward passes mostly
  // go, until set_order().
  BucketQueue(std::span<const FlatEntry> entries, std::vector<FlatSegment> buckets);

  const std::vector<FlatSegment>& buckets() const { return buckets_; }

  // Starts a pass: nothing has arrived.
  void begin();
  bool has_arrived(std::size_t entry) const { return arrived_[entry]; }
  // The gradient of the entry is there. Returns the buckets that may leave now, in order. Once for
  // each entry and pass.
  std::vector<std::size_t> arrive(std::size_t entry);
  // No more gradients come: all buckets that have not left, in order.
  std::vector<std::size_t> finish();

  // The buckets in the order in which they became complete in the last pass; those that did not,
  // last. A permutation, for set_order() between two passes: the same on all ranks.
  const std::vector<std::size_t>& completion_order() const { return completed_; }
  void set_order(std::vector<std::size_t> order);

 private:
  std::vector<std::size_t> leave();

  // Constant after construction.
  std::vector<FlatSegment> buckets_;
  std::vector<std::vector<std::size_t>> buckets_of_;  // by entry
  std::vector<std::size_t> entries_in_;               // number, by bucket

  std::vector<std::size_t> order_;
  // Of this pass.
  std::vector<bool> arrived_;           // by entry
  std::vector<std::size_t> missing_;    // entries, by bucket
  std::vector<std::size_t> completed_;  // in order
  std::size_t next_ = 0;                // of order_
};

}  // namespace trireme

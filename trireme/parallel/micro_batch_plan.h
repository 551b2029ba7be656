// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Who computes which micro-batch of a step, and in which tree their gradients are summed.
//
// A step is micro_batches numbered micro-batches. The sum of their gradients is associated in one
// fixed binary tree over those numbers: [a, b) splits at a + the largest power of two below b - a,
// left plus right, whoever computes them. So the result does not depend on the number of ranks.
//
// The plan cuts the step into rounds. In a round every rank computes the same power of two of
// consecutive micro-batches, sums them in the tree's order (GradientTree), and the ranks' sums are
// added by Group::all_reduce, whose tree over ranks is the upper part of the same tree. Rounds are
// added from the last to the first, which is the top of the tree.
//
//   10 micro-batches, 2 ranks = rounds of 2 x 4 and 2 x 1:
//   round 0: rank 0 {0 1 2 3}  rank 1 {4 5 6 7}      round 1: rank 0 {8}  rank 1 {9}
//
// This works when the micro-batches per rank, or the ranks, are a power of two; any other
// combination is refused. Traffic: one all_reduce for each bit that is set in micro-batches per
// rank.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace trireme {

// Micro-batches [begin, end) of a step; end - begin is a power of two.
struct MicroBatchRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// Constant after construction.
class MicroBatchPlan {
 public:
  // Throws ConfigError with the numbers of ranks that would fit.
  MicroBatchPlan(std::int64_t micro_batches, int ranks);

  std::int64_t num_micro_batches() const { return micro_batches_; }
  // What rank computes, by round.
  std::vector<MicroBatchRange> rounds(int rank) const;

  // The numbers of ranks, ascending, that a plan for micro_batches exists for.
  static std::vector<std::int64_t> fitting_ranks(std::int64_t micro_batches);

 private:
  std::int64_t micro_batches_;
  int ranks_;
};

}  // namespace trireme

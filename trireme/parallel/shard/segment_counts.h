// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The elements of a segment that each rank holds, for collectives over it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trireme/optim/flat_layout.h"

namespace trireme {

inline std::vector<std::int64_t> segment_counts(const FlatSegment& segment, int size) {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < size; ++rank) {
    counts.push_back(shard_pieces(std::span(&segment, 1), rank, size).front().count());
  }
  return counts;
}

}  // namespace trireme

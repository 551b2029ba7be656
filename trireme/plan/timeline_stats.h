// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a timeline says of each rank: how much of the whole it computed. For measured timelines; a
// simulated one's report has the same numbers.
#pragma once

#include <string>
#include <vector>

#include "trireme/plan/timeline_trace.h"

namespace trireme::plan {

struct RankUse {
  int rank = 0;
  double busy_us = 0;  // in spans of the lane; where two overlap it counts once
  double bubble = 0;   // the rest, as a share of the whole, 0 .. 1
};

// One for each rank that has a span, ascending. The whole is from the first start to the last end
// of the lane's spans on any rank, so a rank without any was never busy. Spans may come in any
// order. Cost: O(n log n).
std::vector<RankUse> rank_uses(const std::vector<TraceSpan>& spans,
                               const std::string& lane = kComputeLane);

}  // namespace trireme::plan

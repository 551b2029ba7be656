// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/timeline_stats.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

namespace trireme::plan {
namespace {

using Interval = std::pair<double, double>;  // start, end

double covered(std::vector<Interval> intervals) {
  std::sort(intervals.begin(), intervals.end());
  double sum = 0;
  double until = -std::numeric_limits<double>::infinity();
  for (const auto& [start, end] : intervals) {
    sum += std::max(0.0, end - std::max(start, until));
    until = std::max(until, end);
  }
  return sum;
}

}  // namespace

std::vector<RankUse> rank_uses(const std::vector<TraceSpan>& spans, const std::string& lane) {
  std::map<int, std::vector<Interval>> of_rank;
  double first = std::numeric_limits<double>::infinity();
  double last = -first;
  for (const TraceSpan& span : spans) {
    std::vector<Interval>& intervals = of_rank[span.rank];
    if (span.lane != lane) continue;
    const double end = span.start_us + span.duration_us;
    intervals.emplace_back(span.start_us, end);
    first = std::min(first, span.start_us);
    last = std::max(last, end);
  }
  std::vector<RankUse> uses;
  for (const auto& [rank, intervals] : of_rank) {
    const double busy = covered(intervals);
    uses.push_back({rank, busy, last > first ? 1 - busy / (last - first) : 0});
  }
  return uses;
}

}  // namespace trireme::plan

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rounds of several contenders, set against one another: a round's times only with the times of
// the same round, so that a machine that gets slower or faster meanwhile does not count.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/comm/bench/comm_bench.h"

namespace trireme::peers {

// One contender in one case, over the rounds.
struct Series {
  std::string name;  // engine, and memory where it is ours
  bool ours = false;
  std::vector<double> median_us;  // of each round
  std::vector<double> share_of_limit;
};

struct Comparison {
  std::string op;
  int ranks = 0;
  std::int64_t bytes = 0;
  std::vector<Series> series;

  // The one with the smallest median over the rounds; null where no peer has the operation.
  const Series* best_peer() const;
};

class Comparisons {
 public:
  // In the order in which rows first come.
  void add(const CommBenchRow& row, bool ours);
  const std::vector<Comparison>& all() const { return all_; }

 private:
  std::vector<Comparison> all_;
};

std::string to_table(const Comparison& comparison);
// One line for each of ours and each peer.
std::string to_json(const Comparison& comparison);

}  // namespace trireme::peers

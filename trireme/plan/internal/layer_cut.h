// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a cut of layers into stages costs, and two searches for the best one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "trireme/plan/cut_layers.h"

namespace trireme::plan {

// First layer of each stage.
using Cut = std::vector<int>;

// Less is better, in this order.
struct CutScore {
  std::int64_t excess_bytes = 0;  // over the ranks' memory, of all ranks together
  double rank_us = 0;             // the slowest
  double stage_us = 0;
  double rank_squares = 0;
  double stage_squares = 0;

  auto operator<=>(const CutScore&) const = default;
};

// Times and bytes of runs of layers. Constant after construction.
class CutCosts {
 public:
  CutCosts(const std::vector<LayerCost>& layers, const CutRequest& request);

  int layers() const { return static_cast<int>(time_us_.size()) - 1; }
  int stages() const { return static_cast<int>(rank_of_stage_.size()); }
  int ranks() const { return ranks_; }
  int rank_of(int stage) const { return rank_of_stage_[static_cast<std::size_t>(stage)]; }
  // The last stage of the rank that has the stage.
  int last_stage_of_rank(int rank) const { return last_stage_[static_cast<std::size_t>(rank)]; }

  // Of layers begin .. end-1 as the stage.
  double time_us(int begin, int end) const;
  std::int64_t bytes(int stage, int begin, int end) const;
  // 2^63-1 without a limit.
  std::int64_t memory_bytes(int rank) const { return memory_[static_cast<std::size_t>(rank)]; }

  CutScore score(const Cut& cut) const;
  std::vector<std::int64_t> rank_bytes(const Cut& cut) const;

 private:
  std::vector<int> rank_of_stage_;
  std::vector<int> last_stage_;
  std::vector<int> stored_;
  std::vector<std::int64_t> memory_;
  int ranks_ = 0;
  // Of all layers before each, and before the end.
  std::vector<double> time_us_;
  std::vector<std::int64_t> weights_;
  std::vector<std::int64_t> activations_;
};

// Passes layers on, each through a run of stages, as long as that makes the cut better.
Cut climb(const CutCosts& costs, Cut cut);

// The best cut that fits into the memory and whose slowest rank is no slower than the bound. Goes
// through the stages in order and keeps of the ways to cut the first layers all that may still be
// part of the best; of those that leave ranks with stages to come only so many.
std::optional<Cut> search(const CutCosts& costs, double bound_us);

}  // namespace trireme::plan

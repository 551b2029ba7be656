// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/internal/layer_cut.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "trireme/plan/internal/index.h"

namespace trireme::plan {

CutCosts::CutCosts(const std::vector<LayerCost>& layers, const CutRequest& request)
    : rank_of_stage_(request.rank_of_stage),
      stored_(request.stored),
      memory_(request.memory_bytes),
      ranks_(1 + *std::max_element(rank_of_stage_.begin(), rank_of_stage_.end())),
      time_us_{0},
      weights_{0},
      activations_{0} {
  last_stage_.resize(index(ranks_));
  for (int stage = 0; stage < stages(); ++stage) last_stage_[index(rank_of(stage))] = stage;
  stored_.resize(rank_of_stage_.size(), 0);
  memory_.resize(index(ranks_), std::numeric_limits<std::int64_t>::max());
  for (const LayerCost& layer : layers) {
    time_us_.push_back(time_us_.back() + layer.time_us);
    weights_.push_back(weights_.back() + layer.weight_bytes);
    activations_.push_back(activations_.back() + layer.activation_bytes);
  }
}

double CutCosts::time_us(int begin, int end) const {
  return time_us_[index(end)] - time_us_[index(begin)];
}

std::int64_t CutCosts::bytes(int stage, int begin, int end) const {
  return weights_[index(end)] - weights_[index(begin)] +
         stored_[index(stage)] * (activations_[index(end)] - activations_[index(begin)]);
}

std::vector<std::int64_t> CutCosts::rank_bytes(const Cut& cut) const {
  std::vector<std::int64_t> of_rank(index(ranks_), 0);
  for (int stage = 0; stage < stages(); ++stage) {
    const int end = stage + 1 < stages() ? cut[index(stage) + 1] : layers();
    of_rank[index(rank_of(stage))] += bytes(stage, cut[index(stage)], end);
  }
  return of_rank;
}

CutScore CutCosts::score(const Cut& cut) const {
  CutScore score;
  std::vector<double> times(index(ranks_), 0);
  for (int stage = 0; stage < stages(); ++stage) {
    const int end = stage + 1 < stages() ? cut[index(stage) + 1] : layers();
    const double time = time_us(cut[index(stage)], end);
    times[index(rank_of(stage))] += time;
    score.stage_us = std::max(score.stage_us, time);
    score.stage_squares += time * time;
  }
  const std::vector<std::int64_t> taken = rank_bytes(cut);
  for (int rank = 0; rank < ranks_; ++rank) {
    const double time = times[index(rank)];
    score.rank_us = std::max(score.rank_us, time);
    score.rank_squares += time * time;
    score.excess_bytes += std::max<std::int64_t>(0, taken[index(rank)] - memory_bytes(rank));
  }
  return score;
}

namespace {

// The cut with its boundaries from first to last moved; nothing if a stage would be empty.
std::optional<Cut> moved(const CutCosts& costs, const Cut& cut, int first, int last, int by) {
  Cut result = cut;
  for (int stage = first; stage <= last; ++stage) result[index(stage)] += by;
  const int end = last + 1 < costs.stages() ? result[index(last) + 1] : costs.layers();
  const bool fits = result[index(first)] > result[index(first) - 1] && result[index(last)] < end;
  return fits ? std::optional(result) : std::nullopt;
}

// Better than the cut, and the best that one layer passed on can make it; or nothing.
std::optional<Cut> step(const CutCosts& costs, const Cut& cut, const CutScore& score) {
  std::optional<Cut> best;
  CutScore least = score;
  for (int first = 1; first < costs.stages(); ++first) {
    for (int last = first; last < costs.stages(); ++last) {
      for (const int by : {-1, 1}) {
        std::optional<Cut> next = moved(costs, cut, first, last, by);
        if (!next) continue;
        const CutScore reached = costs.score(*next);
        if (!(reached < least)) continue;
        least = reached;
        best = std::move(next);
      }
    }
  }
  return best;
}

// One way to cut the first layers into the first stages.
struct Partial {
  // Of ranks with stages to come, by rank; 0 for the others, which the rest of this says all about.
  std::vector<double> open_us;
  std::vector<std::int64_t> open_bytes;
  double rank_us = 0;  // the slowest so far, open or not
  double stage_us = 0;
  double rank_squares = 0;  // of the ranks that are complete
  double stage_squares = 0;
  int first = 0;           // of the last of these stages
  std::size_t before = 0;  // of the stages before that, its position in their list
};

bool no_worse(const Partial& a, const Partial& b) {
  if (a.rank_us > b.rank_us || a.stage_us > b.stage_us || a.rank_squares > b.rank_squares ||
      a.stage_squares > b.stage_squares) {
    return false;
  }
  for (std::size_t rank = 0; rank < a.open_us.size(); ++rank) {
    if (a.open_us[rank] > b.open_us[rank] || a.open_bytes[rank] > b.open_bytes[rank]) return false;
  }
  return true;
}

double sum_of_squares(const Partial& partial) {
  double sum = partial.rank_squares;
  for (const double time : partial.open_us) sum += time * time;
  return sum;
}

class Search {
 public:
  Search(const CutCosts& costs, double bound_us) : costs_(costs), bound_us_(bound_us) {}

  std::optional<Cut> run() {
    const std::size_t ranks = index(costs_.ranks());
    lists_.resize(index(costs_.stages()) + 1,
                  std::vector<std::vector<Partial>>(index(costs_.layers()) + 1));
    lists_[0][0] = {{std::vector<double>(ranks, 0), std::vector<std::int64_t>(ranks, 0)}};
    for (int stage = 0; stage < costs_.stages(); ++stage) {
      const int to_come = costs_.stages() - stage - 1;  // each needs a layer
      for (int end = stage + 1; end <= costs_.layers() - to_come; ++end) list(stage, end);
    }
    return best();
  }

 private:
  // Fills the list of the stages up to this, which ends before the layer.
  void list(int stage, int end) {
    std::vector<Partial> found;
    for (int begin = end; begin-- > stage;) {
      if (costs_.time_us(begin, end) > bound_us_) break;
      const std::vector<Partial>& before = lists_[index(stage)][index(begin)];
      for (std::size_t i = 0; i < before.size(); ++i)
        extend(before[i], i, stage, begin, end, found);
    }
    lists_[index(stage) + 1][index(end)] = keep(std::move(found), any_open_after(stage));
  }

  void extend(const Partial& before, std::size_t position, int stage, int begin, int end,
              std::vector<Partial>& found) const {
    const std::size_t rank = index(costs_.rank_of(stage));
    const double time = costs_.time_us(begin, end);
    const double rank_us = before.open_us[rank] + time;
    const std::int64_t bytes = before.open_bytes[rank] + costs_.bytes(stage, begin, end);
    if (rank_us > bound_us_ || bytes > costs_.memory_bytes(costs_.rank_of(stage))) return;
    Partial next = before;
    next.rank_us = std::max(next.rank_us, rank_us);
    next.stage_us = std::max(next.stage_us, time);
    next.stage_squares += time * time;
    const bool open = costs_.last_stage_of_rank(costs_.rank_of(stage)) > stage;
    next.open_us[rank] = open ? rank_us : 0;
    next.open_bytes[rank] = open ? bytes : 0;
    if (!open) next.rank_squares += rank_us * rank_us;
    next.first = begin;
    next.before = position;
    found.push_back(std::move(next));
  }

  bool any_open_after(int stage) const {
    for (int earlier = 0; earlier <= stage; ++earlier) {
      if (costs_.last_stage_of_rank(costs_.rank_of(earlier)) > stage) return true;
    }
    return false;
  }

  // Those to which no other is as good in everything, the most promising first. With open ranks
  // there may be as many as cuts.
  static std::vector<Partial> keep(std::vector<Partial> found, bool any_open) {
    constexpr std::size_t kMostOpen = 64;  // a trade of time for how much of all cuts is seen
    std::stable_sort(found.begin(), found.end(), [](const Partial& a, const Partial& b) {
      return std::pair(a.rank_us, sum_of_squares(a)) < std::pair(b.rank_us, sum_of_squares(b));
    });
    std::vector<Partial> kept;
    for (Partial& next : found) {
      const auto is_beaten = [&](const Partial& other) { return no_worse(other, next); };
      if (std::any_of(kept.begin(), kept.end(), is_beaten)) continue;
      kept.push_back(std::move(next));
      if (any_open && kept.size() == kMostOpen) break;
    }
    return kept;
  }

  std::optional<Cut> best() const {
    const std::vector<Partial>& whole = lists_.back().back();
    if (whole.empty()) return std::nullopt;
    const auto key = [](const Partial& partial) {
      return CutScore{0, partial.rank_us, partial.stage_us, partial.rank_squares,
                      partial.stage_squares};
    };
    const Partial* at =
        &*std::min_element(whole.begin(), whole.end(),
                           [&](const Partial& a, const Partial& b) { return key(a) < key(b); });
    Cut cut(index(costs_.stages()));
    for (int stage = costs_.stages(); stage-- > 0;) {
      cut[index(stage)] = at->first;
      at = &lists_[index(stage)][index(at->first)][at->before];
    }
    return cut;
  }

  // Constant after construction.
  const CutCosts& costs_;
  double bound_us_;

  std::vector<std::vector<std::vector<Partial>>> lists_;  // by number of stages and of layers
};

}  // namespace

Cut climb(const CutCosts& costs, Cut cut) {
  while (std::optional<Cut> better = step(costs, cut, costs.score(cut))) cut = *better;
  return cut;
}

std::optional<Cut> search(const CutCosts& costs, double bound_us) {
  return Search(costs, bound_us).run();
}

}  // namespace trireme::plan

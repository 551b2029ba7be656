// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "bench/peers/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trireme/comm/bench/sizes.h"

namespace trireme::peers {
namespace {

std::string name_of(const CommBenchRow& row, bool ours) {
  return ours ? fmt::format("trireme {} {}", row.engine, row.memory) : row.engine;
}

double median_of(const Series& series) { return spread_of(series.median_us).median; }

std::string share_of(const Series& series) {
  const double share = spread_of(series.share_of_limit).median;
  return std::isfinite(share) ? fmt::format("{:.1f} %", 100 * share) : "-";
}

std::string ratio_of(const Series& ours, const Series& peer) {
  const Spread ratio = paired_ratio(ours.median_us, peer.median_us);
  return fmt::format("{:.3f} ({:.3f} .. {:.3f})", ratio.median, ratio.p10, ratio.p90);
}

}  // namespace

const Series* Comparison::best_peer() const {
  const Series* best = nullptr;
  for (const Series& one : series) {
    if (!one.ours && (best == nullptr || median_of(one) < median_of(*best))) best = &one;
  }
  return best;
}

void Comparisons::add(const CommBenchRow& row, bool ours) {
  auto comparison = std::find_if(all_.begin(), all_.end(), [&](const Comparison& c) {
    return c.op == row.op && c.ranks == row.ranks && c.bytes == row.bytes;
  });
  if (comparison == all_.end()) {
    all_.push_back({.op = row.op, .ranks = row.ranks, .bytes = row.bytes, .series = {}});
    comparison = all_.end() - 1;
  }
  std::vector<Series>& series = comparison->series;
  const std::string name = name_of(row, ours);
  auto one =
      std::find_if(series.begin(), series.end(), [&](const Series& s) { return s.name == name; });
  if (one == series.end()) {
    series.push_back({.name = name, .ours = ours, .median_us = {}, .share_of_limit = {}});
    one = series.end() - 1;
  }
  one->median_us.push_back(row.us.median);
  one->share_of_limit.push_back(row.share_of_limit);
}

std::string to_table(const Comparison& comparison) {
  const Series* best = comparison.best_peer();
  std::string text = fmt::format("{}, {}, {} ranks\n", comparison.op,
                                 format_bytes(comparison.bytes), comparison.ranks);
  std::string head = fmt::format("  {:<24}  {:>11}  {:>11}  {:>11}  {:>8}", "", "median us",
                                 "p10 us", "p90 us", "of limit");
  for (const Series& ours : comparison.series) {
    if (ours.ours) head += fmt::format("  {:<24}", ours.name + " /");
  }
  text += head + "\n";
  for (const Series& one : comparison.series) {
    const Spread us = spread_of(one.median_us);
    text += fmt::format("  {:<24}  {:>11.1f}  {:>11.1f}  {:>11.1f}  {:>8}", one.name, us.median,
                        us.p10, us.p90, share_of(one));
    for (const Series& ours : comparison.series) {
      if (ours.ours && !one.ours) text += fmt::format("  {:<24}", ratio_of(ours, one));
    }
    text += &one == best ? "  <- the better peer\n" : "\n";
  }
  return text;
}

std::string to_json(const Comparison& comparison) {
  std::string lines;
  for (const Series& ours : comparison.series) {
    for (const Series& peer : comparison.series) {
      if (!ours.ours || peer.ours) continue;
      const Spread ratio = paired_ratio(ours.median_us, peer.median_us);
      const double share = spread_of(ours.share_of_limit).median;
      lines += fmt::format(
          R"({{"op": "{}", "ranks": {}, "bytes": {}, "ours": "{}", "median_us": {}, )"
          R"("share_of_limit": {}, "peer": "{}", "peer_median_us": {}, "better_peer": {}, )"
          R"("ratio": {}, "ratio_p10": {}, "ratio_p90": {}, "rounds": {}}})"
          "\n",
          comparison.op, comparison.ranks, comparison.bytes, ours.name, median_of(ours),
          std::isfinite(share) ? fmt::format("{}", share) : "null", peer.name, median_of(peer),
          &peer == comparison.best_peer(), ratio.median, ratio.p10, ratio.p90,
          ours.median_us.size());
    }
  }
  return lines;
}

}  // namespace trireme::peers

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "bench/peers/step_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "trireme/comm/bench/build_info.h"
#include "trireme/comm/bench/statistics.h"

namespace trireme::peers {
namespace {

// Of the rounds in which both ran; there is one at least, for ours never fails.
Spread ratio_of(const StepSeries& ours, const StepSeries& peer) {
  std::vector<double> a, b;
  for (std::size_t round = 0; round < peer.round_ms.size(); ++round) {
    if (!peer.round_ms[round]) continue;
    a.push_back(ours.round_ms[round].value());
    b.push_back(*peer.round_ms[round]);
  }
  return paired_ratio(a, b);
}

const StepSeries* fastest_peer(const StepComparison& comparison) {
  const StepSeries* best = nullptr;
  double least = 0;
  for (const StepSeries& one : comparison.series) {
    if (one.ours || one.ms().empty()) continue;
    const double median = spread_of(one.ms()).median;
    if (best == nullptr || median < least) {
      best = &one;
      least = median;
    }
  }
  return best;
}

nlohmann::ordered_json to_json(const StepComparison& comparison, const StepSeries& peer) {
  const StepWorkload& workload = comparison.workload;
  const StepSeries& ours = comparison.series.front();
  const Spread our_ms = spread_of(ours.ms()), peer_ms = spread_of(peer.ms());
  const Spread ratio = ratio_of(ours, peer);
  return {{"model", workload.model},
          {"dtype", workload.dtype},
          {"batch", workload.batch},
          {"seq", workload.tokens},
          {"threads", workload.threads},
          {"median_ms", our_ms.median},
          {"p10_ms", our_ms.p10},
          {"p90_ms", our_ms.p90},
          {"tokens_per_s", 1e3 * workload.tokens_per_step() / our_ms.median},
          {"peak_bytes", ours.peak_bytes},
          {"peer", peer.name},
          {"peer_median_ms", peer_ms.median},
          {"peer_p10_ms", peer_ms.p10},
          {"peer_p90_ms", peer_ms.p90},
          {"peer_tokens_per_s", 1e3 * workload.tokens_per_step() / peer_ms.median},
          {"peer_peak_bytes", peer.peak_bytes},
          {"better_peer", &peer == fastest_peer(comparison)},
          {"ratio", ratio.median},
          {"ratio_p10", ratio.p10},
          {"ratio_p90", ratio.p90},
          {"rounds", peer.ms().size()},
          {"commit", build_commit()},
          {"peer_description", nlohmann::ordered_json::parse(peer.description)}};
}

std::string row_of(const StepComparison& comparison, const StepSeries& one) {
  const Spread ms = spread_of(one.ms());
  std::string row = fmt::format(
      "  {:<20}{:>11.1f}{:>11.1f}{:>11.1f}{:>11.1f}{:>10.0f}", one.name, ms.median, ms.p10, ms.p90,
      1e3 * comparison.workload.tokens_per_step() / ms.median, one.peak_bytes / 1e6);
  if (!one.ours) {
    const Spread ratio = ratio_of(comparison.series.front(), one);
    row += fmt::format("  {:.3f} ({:.3f} .. {:.3f})", ratio.median, ratio.p10, ratio.p90);
  }
  return row + (&one == fastest_peer(comparison) ? "  <- the better peer\n" : "\n");
}

}  // namespace

std::vector<double> StepSeries::ms() const {
  std::vector<double> all;
  for (const std::optional<double>& one : round_ms) {
    if (one) all.push_back(*one);
  }
  return all;
}

void StepComparison::add(const StepContender& contender, const std::optional<StepResult>& result) {
  auto one = std::find_if(series.begin(), series.end(),
                          [&](const StepSeries& s) { return s.name == contender.name; });
  if (one == series.end()) {
    one = series.insert(one, StepSeries());
    one->name = contender.name;
    one->ours = contender.ours;
  }
  one->round_ms.push_back(result ? std::optional(result->median_ms) : std::nullopt);
  if (!result) return;
  one->peak_bytes = std::max(one->peak_bytes, result->peak_bytes);
  one->description = result->description;
}

std::string to_table(const StepComparison& comparison) {
  const StepWorkload& workload = comparison.workload;
  std::string text = fmt::format("{}, {}, {} x {} tokens, {} threads\n", workload.model,
                                 workload.dtype, workload.batch, workload.tokens, workload.threads);
  text += fmt::format("  {:<20}{:>11}{:>11}{:>11}{:>11}{:>10}  {}\n", "", "median ms", "p10 ms",
                      "p90 ms", "tokens/s", "peak MB", "trireme /");
  for (const StepSeries& one : comparison.series) {
    text +=
        one.ms().empty() ? fmt::format("  {:<20}did not run\n", one.name) : row_of(comparison, one);
  }
  for (const StepSeries& one : comparison.series) {
    if (!one.description.empty()) text += fmt::format("  {}: {}\n", one.name, one.description);
  }
  return text + "\n";
}

std::string to_json(const StepComparison& comparison) {
  std::string lines;
  for (const StepSeries& one : comparison.series) {
    if (!one.ours && !one.ms().empty()) lines += to_json(comparison, one).dump() + "\n";
  }
  return lines;
}

}  // namespace trireme::peers

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/timing.h"

#include <chrono>
#include <cstddef>

namespace trireme {

std::vector<double> time_runs(const std::function<void()>& run, const BenchTiming& timing) {
  using Clock = std::chrono::steady_clock;
  run();
  std::vector<double> samples;
  const auto end = Clock::now() + std::chrono::duration<double>(timing.seconds);
  do {
    const auto begin = Clock::now();
    run();
    samples.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  } while (samples.size() < BenchTiming::kMinSamples ||
           (samples.size() < static_cast<std::size_t>(timing.max_samples) && Clock::now() < end));
  return samples;
}

Spread rate_spread(double amount, const Spread& time) {
  return {.median = amount / time.median, .p10 = amount / time.p90, .p90 = amount / time.p10};
}

Spread scaled(const Spread& spread, double factor) {
  return {.median = spread.median * factor, .p10 = spread.p10 * factor, .p90 = spread.p90 * factor};
}

}  // namespace trireme

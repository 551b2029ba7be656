// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Repeated timings of one process's work.
#pragma once

#include <functional>
#include <vector>

#include "trireme/comm/bench/runner.h"
#include "trireme/comm/bench/statistics.h"

namespace trireme {

// Runs once unmeasured, then until timing.seconds are spent, BenchTiming::kMinSamples times at
// least and timing.max_samples at most. Unit: seconds of each run.
std::vector<double> time_runs(const std::function<void()>& run, const BenchTiming& timing);

// Of rates, when spread is that of the times of one amount: amount / time, the 10th percentile of
// the one from the 90th of the other.
Spread rate_spread(double amount, const Spread& time);

// Each of the three times factor.
Spread scaled(const Spread& spread, double factor);

}  // namespace trireme

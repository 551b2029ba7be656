// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The centre and the spread of repeated timings. Order statistics: one disturbed run moves none of
// them far.
#pragma once

#include <vector>

namespace trireme {

struct Spread {
  double median = 0;
  double p10 = 0;
  double p90 = 0;
};

// By nearest rank; of an even number the lower of the two middle ones. Samples must not be empty.
Spread spread_of(std::vector<double> samples);

// Of a[i] / b[i]: what was measured in turn is compared in turn, so that a drift of the machine
// cancels. Equally many of both.
Spread paired_ratio(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace trireme

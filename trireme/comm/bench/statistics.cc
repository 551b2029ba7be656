// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "trireme/base/check.h"

namespace trireme {

Spread spread_of(std::vector<double> samples) {
  TRIREME_ASSERT(!samples.empty(), "a spread has samples");
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    const double rank = std::ceil(share * static_cast<double>(samples.size()));
    return samples[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
  };
  return {.median = at(0.5), .p10 = at(0.1), .p90 = at(0.9)};
}

Spread paired_ratio(const std::vector<double>& a, const std::vector<double>& b) {
  TRIREME_CHECK_EQ(a.size(), b.size(), "samples taken in turn");
  std::vector<double> ratios(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) ratios[i] = a[i] / b[i];
  return spread_of(std::move(ratios));
}

}  // namespace trireme

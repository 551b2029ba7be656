// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The tree in which sums over blocks are added. Internal to optim/.
#pragma once

#include <cstdint>

namespace trireme::optim::detail {

// Neighbours are added until one is left; the last of an odd number goes on as it is. Overwrites
// the sums. 0 for none.
inline double tree_sum(double* sums, std::int64_t count) {
  if (count == 0) return 0.0;
  for (; count > 1; count = (count + 1) / 2) {
    for (std::int64_t i = 0; i < count / 2; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
    if (count % 2 != 0) sums[count / 2] = sums[count - 1];
  }
  return sums[0];
}

}  // namespace trireme::optim::detail

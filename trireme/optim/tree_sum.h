// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The tree in which sums over blocks are added. Internal to the optimizers.
#pragma once

#include <cstddef>
#include <vector>

namespace trireme::optim {

// Neighbours are added until one is left; the last of an odd number goes on as it is. 0 for none.
inline double tree_sum(std::vector<double> sums) {
  if (sums.empty()) return 0.0;
  for (std::size_t count = sums.size(); count > 1; count = (count + 1) / 2) {
    for (std::size_t i = 0; i < count / 2; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
    if (count % 2 != 0) sums[count / 2] = sums[count - 1];
  }
  return sums[0];
}

}  // namespace trireme::optim

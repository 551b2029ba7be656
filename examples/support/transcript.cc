// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/transcript.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace trireme::examples {

std::string transcript(const at::Tensor& best) {
  std::string text;
  for (std::int64_t t = 0; t < best.size(0); ++t) {
    const auto letter = best[t].item<std::int64_t>();
    const bool repeated = t > 0 && letter == best[t - 1].item<std::int64_t>();
    if (letter != 0 && !repeated) text += static_cast<char>('a' + letter - 1);
  }
  return text;
}

std::size_t edits(const std::string& from, const std::string& to) {
  std::vector<std::size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < to.size(); ++j) {
      const std::size_t changed = diagonal + (from[i] == to[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace trireme::examples

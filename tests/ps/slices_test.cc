// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/slices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "trireme/ps/row_index.h"

namespace trireme::ps {
namespace {

// A change here makes every snapshot unreadable.
TEST(Slices, AreFrozen) {
  std::vector<std::uint32_t> slices;
  for (const std::uint64_t id : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{2},
                                 std::uint64_t{1} << 32, ~std::uint64_t{0}}) {
    for (const std::uint32_t count : {7U, 1000U, 4'294'967'295U}) {
      slices.push_back(slice_of(id, count));
    }
  }
  EXPECT_EQ(slices, (std::vector<std::uint32_t>{0, 0, 0, 4, 704, 3025583355, 1, 229, 985606688, 5,
                                                727, 3124403733, 2, 393, 1689612810}));
}

TEST(Slices, OfOneIsTheWhole) {
  for (std::uint64_t id = 0; id < 1000; ++id) EXPECT_EQ(slice_of(id * 0x9E3779B97F4A7C15U, 1), 0U);
}

// Ids as they come: in a row, or multiples of something. Of 100'003 ids, a slice of 13 has 7693 and
// a standard deviation of 84.
TEST(Slices, ShareIdsEqually) {
  constexpr std::uint32_t kSlices = 13;
  for (const std::uint64_t step : {std::uint64_t{1}, std::uint64_t{4096}, std::uint64_t{1} << 44}) {
    std::vector<int> ids(kSlices, 0);
    for (std::uint64_t i = 0; i < 100'003; ++i) ++ids.at(slice_of(i * step, kSlices));
    EXPECT_GT(*std::min_element(ids.begin(), ids.end()), 7693 - 5 * 84) << step;
    EXPECT_LT(*std::max_element(ids.begin(), ids.end()), 7693 + 5 * 84) << step;
  }
}

// If the two hashes were one, the ids of a slice would lie in a 64th part of their table's index.
TEST(Slices, LeaveTheIdsOfOneEverywhereInTheirIndex) {
  std::vector<int> homes(64, 0);
  int count = 0;
  for (std::uint64_t id = 0; id < 640'000; ++id) {
    if (slice_of(id, 64) != 5) continue;
    ++homes.at(RowIndex::hash_of(id) >> 58);
    ++count;
  }
  const int mean = count / 64;  // some 156, with a standard deviation of 12.5
  EXPECT_GT(*std::min_element(homes.begin(), homes.end()), mean - 75);
  EXPECT_LT(*std::max_element(homes.begin(), homes.end()), mean + 75);
}

}  // namespace
}  // namespace trireme::ps

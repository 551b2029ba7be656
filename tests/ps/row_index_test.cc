// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/ps/chosen_ids.h"

namespace trireme::ps {
namespace {

using trireme::testing::id_of_hash;

std::uint64_t spread_id(std::uint32_t row) { return row * std::uint64_t{0x9E3779B97F4A7C15}; }

TEST(ChosenIds, HaveTheirHash) {
  for (const std::uint64_t hash :
       {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{12345} << 40}) {
    EXPECT_EQ(RowIndex::hash_of(id_of_hash(hash)), hash);
  }
}

// After each id, those around it and some of all are looked for: growth is met in every state.
void expect_all_found(const std::vector<std::uint64_t>& ids, std::uint32_t batch) {
  RowIndex index;
  for (std::uint32_t row = 0; row < ids.size(); ++row) {
    if (row % batch == 0) index.make_room(batch);
    ASSERT_EQ(index.find(ids[row]), nullptr) << row;
    index.insert(ids[row], row)->steps = row * 3;
    for (std::uint32_t i = 0; i < 40; ++i) {
      const std::uint32_t other = i < 20 ? row - std::min(row, i) : row / 20 * (i - 20);
      const RowIndex::Slot* const slot = index.find(ids[other]);
      ASSERT_NE(slot, nullptr) << "row " << other << " of " << row;
      ASSERT_EQ(slot->row(), other);
      ASSERT_EQ(slot->steps, other * 3);
    }
  }
  for (std::uint32_t row = 0; row < ids.size(); ++row) ASSERT_EQ(index.find(ids[row])->row(), row);
}

TEST(RowIndex, FindsAllWhileItGrows) {
  std::vector<std::uint64_t> ids;
  for (std::uint32_t row = 0; row < 50'021; ++row) ids.push_back(spread_id(row));
  expect_all_found(ids, 1);
  expect_all_found(ids, 32);
}

// Runs of taken places that begin at the array's end and go on at its front, of any length; the
// free place at which growth begins is behind them.
TEST(RowIndex, FindsThoseThatLieAcrossTheEnd) {
  for (const std::uint32_t at_end : {1U, 7U, 100U, 158U, 700U}) {
    std::vector<std::uint64_t> ids;
    for (std::uint32_t i = 0; i < at_end; ++i) ids.push_back(id_of_hash(~std::uint64_t{0} - i));
    for (std::uint32_t i = 0; i < 1500; ++i) {
      // Every third with a home at the front, where those of the end lie.
      ids.push_back(i % 3 == 0 ? id_of_hash(std::uint64_t{i} << 40) : spread_id(i + 1));
    }
    expect_all_found(ids, 1);
    expect_all_found(ids, 32);
  }
}

TEST(RowIndex, FindsThoseOfOneHome) {
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < 2000; ++i) ids.push_back(id_of_hash((std::uint64_t{77} << 56) + i));
  expect_all_found(ids, 1);
}

TEST(RowIndex, HasNoIdThatIsReserved) {
  RowIndex index;
  index.make_room(2);
  EXPECT_EQ(index.find(0), nullptr);
  EXPECT_EQ(index.find(~std::uint64_t{0}), nullptr);
  index.insert(~std::uint64_t{0}, 0);
  EXPECT_EQ(index.find(0), nullptr);
  index.insert(0, 1);
  EXPECT_EQ(index.find(0)->row(), 1U);
  EXPECT_EQ(index.find(~std::uint64_t{0})->row(), 0U);
}

// 16 bytes a place, at least five sixteenths of them taken.
TEST(RowIndex, TakesLittleMemory) {
  RowIndex index;
  EXPECT_EQ(index.memory_bytes(), 4096);
  constexpr std::uint32_t kRows = 200'003;
  for (std::uint32_t row = 0; row < kRows; ++row) {
    index.make_room(1);
    index.insert(spread_id(row), row);
  }
  EXPECT_LE(index.memory_bytes(), kRows * std::int64_t{16} * 16 / 5);
}

}  // namespace
}  // namespace trireme::ps

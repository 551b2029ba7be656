// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rows in memory that the servers share, which they use where it is.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "tests/ps/job.h"
#include "trireme/base/random.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/ps/row_request.h"

namespace trireme::ps {
namespace {

JobLayout two_tables(const Consistency& consistency) {
  SparseTableConfig narrow, wide;
  narrow.name = "narrow";
  narrow.width = 3;
  wide.name = "wide";
  wide.width = 21;
  for (SparseTableConfig* table : {&narrow, &wide})
    table->optimizer = {.name = "sgd", .momentum = 0};
  JobLayout layout;
  layout.consistency = consistency;
  layout.sparse = {.tables = {narrow, wide}, .slices = 5, .seed = 3};
  return layout;
}

// The ids of a rank in a step: some of them other ranks', too.
std::vector<std::uint64_t> ids_of(int rank, std::int64_t step, std::size_t count) {
  std::vector<std::uint64_t> ids;
  for (std::size_t i = 0; i < count; ++i) {
    ids.push_back((i * 7919 + static_cast<std::size_t>(rank * 31 + step * 17)) % 499 *
                  0x9E3779B97F4A7C15U);
  }
  return ids;
}

// What all ranks pull in all steps, one after the other, and how it was carried.
std::map<int, std::vector<float>> pulled(const Consistency& consistency, bool in_place) {
  std::map<int, std::vector<float>> all;
  std::mutex mutex;
  Job job({.servers = 2, .workers = 2});
  job.run(two_tables(consistency), [&](Worker& worker) {
    if (worker.rank() == 0) worker.wait(worker.init());
    constexpr std::size_t kIds = 113;
    constexpr std::size_t kFloats = kIds * (3 + 21);
    const SharedBuffer shared_gradients = worker.allocate((7 + kFloats) * sizeof(float));
    const SharedBuffer shared_rows = worker.allocate((2 + kFloats) * sizeof(float));
    std::vector<float> gradients(kFloats), rows(kFloats);
    float* const g = in_place ? static_cast<float*>(shared_gradients.data()) + 7 : gradients.data();
    float* const r = in_place ? static_cast<float*>(shared_rows.data()) + 2 : rows.data();
    std::vector<float> seen;
    for (std::int64_t step = 0; step < 6; ++step) {
      const auto ids = ids_of(worker.rank(), step, kIds);
      const auto next = ids_of(worker.rank(), step + 1, kIds);
      for (std::size_t i = 0; i < kFloats; ++i) {
        g[i] = static_cast<float>(i % 19) - static_cast<float>(worker.rank()) * 4.0F;
      }
      std::fill_n(r, kFloats, -1e9F);
      const std::vector<PushRows> push = {{.table = 0, .ids = ids, .gradients = g},
                                          {.table = 1, .ids = ids, .gradients = g + kIds * 3}};
      const std::vector<PullRows> pull = {{.table = 0, .ids = next, .rows = r},
                                          {.table = 1, .ids = next, .rows = r + kIds * 3}};
      worker.wait(worker.push_rows(push, {.learning_rate = 0.125}, pull));
      worker.end_step();
      seen.insert(seen.end(), r, r + kFloats);
    }
    const std::lock_guard lock(mutex);
    all[worker.rank()] = seen;
  });
  return all;
}

TEST(RowsInPlace, GiveTheBitsOfRowsThatAreCopied) {
  const auto in_place = pulled(Consistency::sync(), true);
  EXPECT_EQ(in_place, pulled(Consistency::sync(), false));
  for (const auto& [rank, values] : in_place) {
    EXPECT_THAT(values, ::testing::Each(::testing::Gt(-1e6F))) << rank;
  }
}

std::string lists_of_two_tables() {
  return write_lists(std::vector<TableLists>{{.table = 0,
                                              .push_ids = {5, 9, 11},
                                              .pull_ids = {4},
                                              .push_places = {2, 0, 1},
                                              .pull_places = {6},
                                              .push_begin = 8,
                                              .push_rows = 3,
                                              .pull_begin = 4,
                                              .pull_rows = 7},
                                             {.table = 1,
                                              .push_ids = {1},
                                              .pull_ids = {2, 3},
                                              .push_places = {0},
                                              .pull_places = {1, 0},
                                              .push_begin = 44,
                                              .push_rows = 1,
                                              .pull_begin = 100,
                                              .pull_rows = 2}});
}

TEST(RowsInPlace, ListsSayWhereRowsLie) {
  const std::vector<std::byte> memory(44 + 21 * 4);
  const std::vector<std::int64_t> widths = {3, 21};
  const std::string lists = lists_of_two_tables();
  const std::vector<TableRows> tables = parse_lists(lists, memory, widths);
  ASSERT_EQ(tables.size(), 2U);
  EXPECT_THAT(tables[0].push_ids, ::testing::ElementsAre(5, 9, 11));
  EXPECT_THAT(tables[0].push_places, ::testing::ElementsAre(2, 0, 1));
  EXPECT_EQ(reinterpret_cast<const std::byte*>(tables[0].rows), memory.data() + 8);
  EXPECT_EQ(tables[0].pull_end, 4U + 7 * 12);
  EXPECT_THAT(tables[1].pull_ids, ::testing::ElementsAre(2, 3));
  EXPECT_THAT(tables[1].pull_places, ::testing::ElementsAre(1, 0));
  EXPECT_EQ(tables[1].pull_begin, 100U);
  // The last table's gradients end with the memory.
  EXPECT_THROW(parse_lists(lists, std::span(memory).first(memory.size() - 1), widths),
               ProtocolError);
}

TEST(RowsInPlace, DamagedListsAreRefusedOrStayInTheirMemory) {
  const std::vector<std::byte> memory(44 + 21 * 4);
  const std::vector<std::int64_t> widths = {3, 21};
  const std::string whole = lists_of_two_tables();
  const RandomStream random(7, "damage");
  int refused = 0;
  for (std::uint64_t i = 0; i < 20'000; ++i) {
    std::string lists = whole;
    const std::uint64_t bits = random.bits(i);
    // A byte of any value, one that is near, or an end that is missing.
    if (bits % 3 == 0) {
      lists.resize(bits / 3 % lists.size());
    } else {
      char& byte = lists[bits / 3 % lists.size()];
      byte = static_cast<char>(bits % 3 == 1 ? bits >> 40 : static_cast<std::uint64_t>(byte) + 1);
    }
    try {
      for (const TableRows& rows : parse_lists(lists, memory, widths)) {
        const std::int64_t width = widths.at(rows.table);
        for (const std::uint32_t place : rows.push_places) {
          const auto* const end =
              reinterpret_cast<const std::byte*>(rows.rows + (place + 1) * width);
          ASSERT_LE(end, memory.data() + memory.size()) << i;
        }
        for (const std::uint32_t place : rows.pull_places) {
          ASSERT_LE(rows.pull_begin + (place + 1) * static_cast<std::size_t>(width) * sizeof(float),
                    rows.pull_end)
              << i;
        }
      }
    } catch (const ProtocolError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 10'000);
}

}  // namespace
}  // namespace trireme::ps

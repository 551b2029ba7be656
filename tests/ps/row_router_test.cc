// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstring>
#include <numeric>
#include <set>
#include <vector>

#include "tests/ps/table_model.h"
#include "tests/support/error_text.h"
#include "trireme/ps/slices.h"
#include "trireme/ps/worker.h"

namespace trireme::ps {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using trireme::testing::arbitrary_ids;
using trireme::testing::failure_of;

using Ids = std::vector<std::uint64_t>;

// A list of rows in the caller's memory.
struct List {
  std::uint64_t table = 0;
  Ids ids;
  std::size_t begin = 0;  // in the memory, floats
};

struct Lists {
  std::vector<List> lists;    // in any order of tables
  std::vector<float> memory;  // of all, and some more
};

// Of some tables, each once; rows of one are apart from those of another.
Lists arbitrary_lists(const std::vector<std::int64_t>& widths) {
  Lists result;
  std::vector<std::uint64_t> tables(widths.size());
  std::iota(tables.begin(), tables.end(), 0U);
  std::size_t at = 0;
  while (!tables.empty()) {
    const auto which = *rc::gen::inRange<std::size_t>(0, tables.size());
    const std::uint64_t table = tables[which];
    tables.erase(tables.begin() + static_cast<std::ptrdiff_t>(which));
    if (*rc::gen::weightedElement<bool>({{1, true}, {3, false}})) continue;
    at += *rc::gen::inRange<std::size_t>(0, 5);
    result.lists.push_back({table, *arbitrary_ids(), at});
    at += result.lists.back().ids.size() * static_cast<std::size_t>(widths[table]);
  }
  result.memory.resize(at + 7);
  std::iota(result.memory.begin(), result.memory.end(), 0.0F);
  return result;
}

// What a server would answer: a value for each table, id and column.
float value_of(std::uint64_t table, std::uint64_t id, std::size_t column) {
  return static_cast<float>((id ^ (id >> 40)) % 65'536 + 7 * table) +
         0.125F * static_cast<float>(column);
}

struct Case {
  std::vector<std::int64_t> widths;
  std::uint32_t slices = 1;
  Lists push, pull;
  std::vector<PushRows> push_rows;
  std::vector<PullRows> pull_rows;

  std::size_t width(std::uint64_t table) const { return static_cast<std::size_t>(widths[table]); }
  RowRouter router() { return {push_rows, pull_rows, widths, slices}; }
};

std::unique_ptr<Case> arbitrary_case() {
  auto result = std::make_unique<Case>();
  const auto tables = *rc::gen::inRange<std::size_t>(1, 5);
  for (std::size_t i = 0; i < tables; ++i) {
    // Those of which rows are copied by vector instructions, and others.
    result->widths.push_back(*rc::gen::element<std::int64_t>(1, 3, 16, 32, 64, 128, 19));
  }
  result->slices = *rc::gen::inRange(1U, 7U);
  result->push = arbitrary_lists(result->widths);
  result->pull = arbitrary_lists(result->widths);
  for (const List& list : result->push.lists) {
    result->push_rows.push_back({list.table, list.ids, result->push.memory.data() + list.begin});
  }
  for (const List& list : result->pull.lists) {
    result->pull_rows.push_back({list.table, list.ids, result->pull.memory.data() + list.begin});
  }
  return result;
}

// Ids of a list that are in a slice, and which they are of the list.
std::vector<std::uint32_t> places_in(const Ids& ids, std::uint32_t slice, std::uint32_t slices) {
  std::vector<std::uint32_t> places;
  for (std::uint32_t i = 0; i < ids.size(); ++i) {
    if (slice_of(ids[i], slices) == slice) places.push_back(i);
  }
  return places;
}

const List* list_of(const Lists& lists, std::uint64_t table) {
  for (const List& list : lists.lists) {
    if (list.table == table) return &list;
  }
  return nullptr;
}

void expect_ids(std::span<const std::uint64_t> found, const List* list,
                const std::vector<std::uint32_t>& places) {
  RC_ASSERT(found.size() == places.size());
  for (std::size_t i = 0; i < places.size(); ++i) RC_ASSERT(found[i] == list->ids[places[i]]);
}

std::vector<std::uint32_t> places_in(const Case& test, const List* list, std::uint32_t slice) {
  if (list == nullptr) return {};
  return places_in(list->ids, slice, test.slices);
}

// Each slice is asked for its rows and no others, in the order of the lists, and their gradients
// come with them; what it answers goes to where the rows are wanted, and nothing else is written.
RC_GTEST_PROP(RowRouter, AsksEachSliceForItsRows, ()) {
  const auto test = arbitrary_case();
  const RowRouter router = test->router();
  std::vector<float> expected = test->pull.memory;
  for (std::uint32_t slice = 0; slice < test->slices; ++slice) {
    std::vector<std::uint64_t> words(router.request_bytes(slice) / 8);
    RC_ASSERT(words.size() * 8 == router.request_bytes(slice));
    router.write(slice, std::as_writable_bytes(std::span(words)));
    std::vector<float> reply;
    std::set<std::uint64_t> tables;
    for (const TableRows& rows : parse_rows(std::as_bytes(std::span(words)), test->widths)) {
      tables.insert(rows.table);
      const std::size_t width = test->width(rows.table);
      const List *push = list_of(test->push, rows.table), *pull = list_of(test->pull, rows.table);
      const auto pushed = places_in(*test, push, slice), pulled = places_in(*test, pull, slice);
      expect_ids(rows.push_ids, push, pushed);
      expect_ids(rows.pull_ids, pull, pulled);
      for (std::size_t i = 0; i < pushed.size(); ++i) {
        const float* row = test->push.memory.data() + push->begin + pushed[i] * width;
        RC_ASSERT(std::equal(row, row + width, rows.rows + i * width));
      }
      for (std::size_t i = 0; i < pulled.size(); ++i) {
        for (std::size_t column = 0; column < width; ++column) {
          reply.push_back(value_of(rows.table, rows.pull_ids[i], column));
          expected[pull->begin + pulled[i] * width + column] = reply.back();
        }
      }
    }
    for (const Lists* lists : {&test->push, &test->pull}) {
      for (const List& list : lists->lists) {
        RC_ASSERT(tables.contains(list.table) || places_in(*test, &list, slice).empty());
      }
    }
    RC_ASSERT(router.reply_bytes(slice) == reply.size() * sizeof(float));
    RC_ASSERT(router.pulls(slice) == !reply.empty());
    router.scatter(slice, std::as_bytes(std::span(reply)));
  }
  RC_ASSERT(test->pull.memory == expected);
}

// The same by lists of what is where.
RC_GTEST_PROP(RowRouter, SaysWhereRowsLie, ()) {
  const auto test = arbitrary_case();
  const RowRouter router = test->router();
  const auto from = std::as_bytes(std::span(test->push.memory));
  const auto to = std::as_bytes(std::span(test->pull.memory));
  std::vector<float> expected = test->pull.memory;
  std::size_t pushed_rows = 0;
  for (std::uint32_t slice = 0; slice < test->slices; ++slice) {
    const std::string text = router.lists(slice, from, to);
    std::vector<std::uint64_t> words(text.size() / 8);
    std::memcpy(words.data(), text.data(), text.size());
    const std::string_view aligned(reinterpret_cast<const char*>(words.data()), text.size());
    for (const TableRows& rows : parse_lists(aligned, from, test->widths)) {
      const std::size_t width = test->width(rows.table);
      const List *push = list_of(test->push, rows.table), *pull = list_of(test->pull, rows.table);
      expect_ids(rows.push_ids, push, places_in(*test, push, slice));
      expect_ids(rows.pull_ids, pull, places_in(*test, pull, slice));
      for (std::size_t i = 0; i < rows.push_ids.size(); ++i, ++pushed_rows) {
        RC_ASSERT(push->ids[rows.push_places[i]] == rows.push_ids[i]);
        RC_ASSERT(rows.rows == test->push.memory.data() + push->begin);
      }
      for (std::size_t i = 0; i < rows.pull_ids.size(); ++i) {
        const std::size_t at = rows.pull_begin / sizeof(float) + rows.pull_places[i] * width;
        RC_ASSERT(at == pull->begin + rows.pull_places[i] * width);
        RC_ASSERT(pull->ids[rows.pull_places[i]] == rows.pull_ids[i]);
        RC_ASSERT(rows.pull_end <= to.size());
      }
    }
  }
  std::size_t all_rows = 0;
  for (const List& list : test->push.lists) all_rows += list.ids.size();
  RC_ASSERT(pushed_rows == all_rows);
}

TEST(RowRouter, RefusesTablesThatAreNotThereOrComeTwice) {
  const std::vector<std::int64_t> widths = {3, 4};
  const Ids ids = {1, 2};
  std::vector<float> rows(8);
  const auto refusal = [&](std::vector<std::uint64_t> pushed, std::vector<std::uint64_t> pulled) {
    std::vector<PushRows> push;
    std::vector<PullRows> pull;
    for (const std::uint64_t table : pushed) push.push_back({table, ids, rows.data()});
    for (const std::uint64_t table : pulled) pull.push_back({table, ids, rows.data()});
    return failure_of([&] { RowRouter(push, pull, widths, 3); });
  };
  EXPECT_EQ(refusal({1, 0}, {0, 1}), "no error");
  EXPECT_EQ(refusal({2}, {}), "ShapeError: push of table 2: the job has 2 tables");
  EXPECT_EQ(refusal({}, {0, 7}), "ShapeError: pull of table 7: the job has 2 tables");
  EXPECT_EQ(refusal({0, 1, 0}, {}), "ShapeError: push of table 0 twice in one call");
  EXPECT_EQ(refusal({0}, {1, 1}), "ShapeError: pull of table 1 twice in one call");
}

}  // namespace
}  // namespace trireme::ps

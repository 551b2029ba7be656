// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "tests/ps/malformed_bytes.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

using trireme::testing::malformed;

using Ids = std::vector<std::uint64_t>;

// Rows of one table, in and out of a request.
struct Part {
  std::uint64_t table = 0;
  Ids pushed, pulled;
  std::vector<float> rows;  // [pushed, width]
};

struct Request {
  std::vector<std::int64_t> widths;  // of all tables
  std::vector<Part> parts;           // ascending by table, of some tables
};

Ids arbitrary_ids() {
  const auto count = *rc::gen::inRange<std::size_t>(0, 9);
  return *rc::gen::resize(rc::kNominalSize,
                          rc::gen::container<Ids>(count, rc::gen::arbitrary<std::uint64_t>()));
}

Request arbitrary_request() {
  Request request;
  const auto tables = *rc::gen::inRange<std::size_t>(1, 5);
  for (std::uint64_t table = 0; table < tables; ++table) {
    const std::int64_t width = *rc::gen::inRange<std::int64_t>(1, 8);
    request.widths.push_back(width);
    if (*rc::gen::weightedElement<bool>({{1, true}, {3, false}})) continue;
    Part part{.table = table, .pushed = arbitrary_ids(), .pulled = arbitrary_ids(), .rows = {}};
    for (std::size_t i = 0; i < part.pushed.size() * static_cast<std::size_t>(width); ++i) {
      part.rows.push_back(static_cast<float>(100 * table + i));
    }
    request.parts.push_back(std::move(part));
  }
  return request;
}

// Aligned as memory of a request is.
struct Aligned {
  explicit Aligned(std::size_t size) : words((size + 7) / 8), bytes_size(size) {}
  explicit Aligned(const std::string& text) : Aligned(text.size()) {
    std::copy(text.begin(), text.end(), reinterpret_cast<char*>(words.data()));
  }
  std::span<std::byte> bytes() {
    return std::as_writable_bytes(std::span(words)).first(bytes_size);
  }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(words.data()), bytes_size};
  }
  std::vector<std::uint64_t> words;
  std::size_t bytes_size;
};

Aligned pack(const Request& request) {
  std::vector<RowSpace> spaces;
  for (const Part& part : request.parts) {
    spaces.push_back({part.table, part.pushed.size(), part.pulled.size()});
  }
  Aligned payload(row_request_bytes(spaces, request.widths));
  lay_out_rows(payload.bytes(), spaces, request.widths);
  for (std::size_t i = 0; i < spaces.size(); ++i) {
    const Part& part = request.parts[i];
    std::copy(part.pushed.begin(), part.pushed.end(), spaces[i].push_ids.begin());
    std::copy(part.pulled.begin(), part.pulled.end(), spaces[i].pull_ids.begin());
    std::copy(part.rows.begin(), part.rows.end(), spaces[i].rows);
  }
  return payload;
}

Ids copy_of(std::span<const std::uint64_t> ids) { return {ids.begin(), ids.end()}; }

bool lies_in(std::span<const std::byte> whole, const void* at, std::size_t bytes) {
  const auto* const begin = static_cast<const std::byte*>(at);
  return bytes == 0 || (begin >= whole.data() && begin + bytes <= whole.data() + whole.size());
}

template <class T>
bool lies_in(std::span<const std::byte> whole, std::span<const T> part) {
  return lies_in(whole, part.data(), part.size_bytes());
}

RC_GTEST_PROP(RowRequests, PackedComeBack, ()) {
  const Request request = arbitrary_request();
  Aligned payload = pack(request);
  const std::vector<TableRows> tables = parse_rows(payload.bytes(), request.widths);
  RC_ASSERT(tables.size() == request.parts.size());
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const Part& part = request.parts[i];
    RC_ASSERT(tables[i].table == part.table);
    RC_ASSERT(copy_of(tables[i].push_ids) == part.pushed);
    RC_ASSERT(copy_of(tables[i].pull_ids) == part.pulled);
    RC_ASSERT(std::equal(part.rows.begin(), part.rows.end(), tables[i].rows));
    RC_ASSERT(tables[i].push_places.empty() && tables[i].pull_places.empty());
  }
}

// An error, or rows that all lie in the request.
RC_GTEST_PROP(RowRequests, PackedAreErrorsWhenTheyAreDamaged, ()) {
  const Request request = arbitrary_request();
  Aligned payload(malformed(std::string(pack(request).text())));
  try {
    for (const TableRows& rows : parse_rows(payload.bytes(), request.widths)) {
      const auto width = static_cast<std::size_t>(request.widths.at(rows.table));
      RC_ASSERT(lies_in(payload.bytes(), rows.push_ids));
      RC_ASSERT(lies_in(payload.bytes(), rows.pull_ids));
      RC_ASSERT(lies_in(payload.bytes(), rows.rows, rows.push_ids.size() * width * sizeof(float)));
    }
  } catch (const ProtocolError&) {
  }
}

// In place: each table's gradients somewhere in a memory, and its wanted rows in another.
struct InPlace {
  std::vector<std::int64_t> widths;
  std::vector<TableLists> lists;
  std::vector<float> memory;
};

std::vector<std::uint32_t> arbitrary_places(std::size_t count, std::size_t rows) {
  std::vector<std::uint32_t> places;
  for (std::size_t i = 0; i < count; ++i) {
    places.push_back(static_cast<std::uint32_t>(*rc::gen::inRange<std::size_t>(0, rows)));
  }
  return places;
}

InPlace arbitrary_in_place() {
  const Request request = arbitrary_request();
  InPlace in_place{.widths = request.widths, .lists = {}, .memory = {}};
  std::size_t at = 0, to = 0;
  for (const Part& part : request.parts) {
    const auto width = static_cast<std::size_t>(request.widths[part.table]);
    TableLists lists{.table = part.table,
                     .push_ids = part.pushed,
                     .pull_ids = part.pulled,
                     .push_places = {},
                     .pull_places = {}};
    at += *rc::gen::inRange<std::size_t>(0, 5);
    to += *rc::gen::inRange<std::size_t>(0, 5);
    lists.push_begin = at * sizeof(float);
    lists.pull_begin = to * sizeof(float);
    lists.push_rows = part.pushed.size() + *rc::gen::inRange<std::size_t>(0, 4);
    lists.pull_rows = part.pulled.size() + *rc::gen::inRange<std::size_t>(0, 4);
    lists.push_places = arbitrary_places(part.pushed.size(), lists.push_rows);
    lists.pull_places = arbitrary_places(part.pulled.size(), lists.pull_rows);
    at += lists.push_rows * width;
    to += lists.pull_rows * width;
    in_place.lists.push_back(std::move(lists));
  }
  in_place.memory.resize(at + 3);
  std::iota(in_place.memory.begin(), in_place.memory.end(), 0.0F);
  return in_place;
}

RC_GTEST_PROP(RowRequests, InPlaceComeBack, ()) {
  const InPlace in_place = arbitrary_in_place();
  const Aligned lists(write_lists(in_place.lists));
  const auto memory = std::as_bytes(std::span(in_place.memory));
  const std::vector<TableRows> tables = parse_lists(lists.text(), memory, in_place.widths);
  RC_ASSERT(tables.size() == in_place.lists.size());
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const TableLists& expected = in_place.lists[i];
    const TableRows& rows = tables[i];
    const auto width = static_cast<std::size_t>(in_place.widths[rows.table]);
    RC_ASSERT(rows.table == expected.table);
    RC_ASSERT(copy_of(rows.push_ids) == expected.push_ids);
    RC_ASSERT(copy_of(rows.pull_ids) == expected.pull_ids);
    RC_ASSERT(std::equal(rows.push_places.begin(), rows.push_places.end(),
                         expected.push_places.begin(), expected.push_places.end()));
    RC_ASSERT(std::equal(rows.pull_places.begin(), rows.pull_places.end(),
                         expected.pull_places.begin(), expected.pull_places.end()));
    RC_ASSERT(rows.pull_begin == expected.pull_begin);
    RC_ASSERT(rows.pull_end == expected.pull_begin + expected.pull_rows * width * sizeof(float));
    RC_ASSERT(rows.rows == in_place.memory.data() + expected.push_begin / sizeof(float));
  }
}

// An error, or rows that all lie in the memory and lists that lie in the lists.
RC_GTEST_PROP(RowRequests, InPlaceAreErrorsWhenTheyAreDamaged, ()) {
  const InPlace in_place = arbitrary_in_place();
  Aligned lists(malformed(write_lists(in_place.lists)));
  const auto memory = std::as_bytes(std::span(in_place.memory));
  try {
    for (const TableRows& rows : parse_lists(lists.text(), memory, in_place.widths)) {
      const auto width = static_cast<std::size_t>(in_place.widths.at(rows.table));
      RC_ASSERT(lies_in(lists.bytes(), rows.push_ids) && lies_in(lists.bytes(), rows.pull_ids));
      RC_ASSERT(rows.push_places.size() == rows.push_ids.size());
      RC_ASSERT(rows.pull_places.size() == rows.pull_ids.size());
      for (const std::uint32_t place : rows.push_places) {
        RC_ASSERT(lies_in(memory, rows.rows + place * width, width * sizeof(float)));
      }
      for (const std::uint32_t place : rows.pull_places) {
        RC_ASSERT(rows.pull_begin + (place + 1) * width * sizeof(float) <= rows.pull_end);
      }
    }
  } catch (const ProtocolError&) {
  }
}

// Counts whose bytes do not fit 64 bits.
TEST(RowRequests, CountsThatOverflowAreErrors) {
  const std::vector<std::int64_t> widths = {5};
  for (const std::uint64_t count : {~std::uint64_t{0}, std::uint64_t{1} << 61,
                                    (std::uint64_t{1} << 62) / 5 + 1, std::uint64_t{1} << 60}) {
    for (const int which : {0, 1}) {
      std::vector<std::uint64_t> words = {1, 0, 0, 0};
      words[static_cast<std::size_t>(2 + which)] = count;
      EXPECT_THROW(parse_rows(std::as_bytes(std::span(words)), widths), ProtocolError) << count;
      std::vector<std::uint64_t> lists = {1, 0, 0, 0, 0, 0, 0, 0};
      for (const std::size_t at : {2, 3, 4, 5, 7}) {
        std::vector<std::uint64_t> changed = lists;
        changed[at] = count;
        const Aligned text(std::string(reinterpret_cast<const char*>(changed.data()),
                                       changed.size() * sizeof(std::uint64_t)));
        EXPECT_THROW(parse_lists(text.text(), std::as_bytes(std::span(words)), widths),
                     ProtocolError)
            << count << " at " << at;
      }
    }
  }
}

}  // namespace
}  // namespace trireme::ps

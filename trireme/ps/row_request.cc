// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_request.h"

#include <algorithm>
#include <cstring>

#include "trireme/base/check.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

constexpr std::size_t kWord = sizeof(std::uint64_t);

struct Front {
  std::uint64_t table = 0, pushed = 0, wanted = 0;
};

std::size_t row_bytes(std::uint64_t rows, std::int64_t width) {
  const std::size_t bytes = rows * static_cast<std::size_t>(width) * sizeof(float);
  return (bytes + kWord - 1) / kWord * kWord;
}

// Takes bytes off the front.
class Cutter {
 public:
  explicit Cutter(std::span<const std::byte> bytes) : rest_(bytes) {}
  const std::byte* take(std::size_t size) {
    if (size > rest_.size()) {
      throw_error<ProtocolError>("rows that end {} bytes after their payload", size - rest_.size());
    }
    const std::byte* const begin = rest_.data();
    rest_ = rest_.subspan(size);
    return begin;
  }
  // count things of a size; a count that overflows is too large for any payload.
  const std::byte* take(std::uint64_t count, std::size_t size) {
    if (size > 0 && count > rest_.size() / size) {
      throw_error<ProtocolError>("{} rows or ids in {} bytes", count, rest_.size());
    }
    return take(count * size);
  }
  std::size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

std::uint64_t word_at(const std::byte* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

std::span<const std::uint64_t> ids_at(const std::byte* at, std::uint64_t count) {
  return {reinterpret_cast<const std::uint64_t*>(at), static_cast<std::size_t>(count)};
}

}  // namespace

std::vector<TableRows> parse_rows(std::span<const std::byte> payload,
                                  std::span<const std::int64_t> widths) {
  if (payload.empty()) return {};
  if (reinterpret_cast<std::uintptr_t>(payload.data()) % kWord != 0) {
    throw_error<ProtocolError>("rows at an address that is no multiple of {}", kWord);
  }
  Cutter cutter(payload);
  const std::uint64_t num_tables = word_at(cutter.take(kWord));
  if (num_tables > widths.size()) {
    throw_error<ProtocolError>("rows of {} tables, of which there are {}", num_tables,
                               widths.size());
  }
  std::vector<Front> fronts;
  for (std::uint64_t i = 0; i < num_tables; ++i) {
    const std::byte* const at = cutter.take(3 * kWord);
    fronts.push_back({word_at(at), word_at(at + kWord), word_at(at + 2 * kWord)});
    if (fronts.back().table >= widths.size()) {
      throw_error<ProtocolError>("rows of table {}, of which there are {}", fronts.back().table,
                                 widths.size());
    }
    if (i > 0 && fronts.back().table <= fronts[i - 1].table) {
      throw_error<ProtocolError>("rows of table {} after those of table {}", fronts.back().table,
                                 fronts[i - 1].table);
    }
  }
  std::vector<TableRows> tables;
  for (const Front& front : fronts) {
    const std::int64_t width = widths[front.table];
    TableRows rows{
        .table = front.table, .push_ids = {}, .pull_ids = {}, .push_places = {}, .pull_places = {}};
    rows.push_ids = ids_at(cutter.take(front.pushed, kWord), front.pushed);
    if (front.pushed > cutter.left()) throw_error<ProtocolError>("{} rows too many", front.pushed);
    rows.rows = reinterpret_cast<const float*>(cutter.take(row_bytes(front.pushed, width)));
    rows.pull_ids = ids_at(cutter.take(front.wanted, kWord), front.wanted);
    tables.push_back(rows);
  }
  if (cutter.left() > 0) throw_error<ProtocolError>("{} bytes after the rows", cutter.left());
  return tables;
}

namespace {

struct ListFront {
  std::uint64_t table, pushed, wanted, push_begin, push_rows, pull_begin, pull_rows;
};

std::size_t padded(std::size_t bytes) { return (bytes + kWord - 1) / kWord * kWord; }

// Where a matrix of rows ends that begins at `begin`; at most `limit`.
std::size_t end_of(std::uint64_t begin, std::uint64_t rows, std::int64_t width, std::size_t limit) {
  const std::size_t row = static_cast<std::size_t>(width) * sizeof(float);
  if (begin % sizeof(float) != 0 || begin > limit || rows > (limit - begin) / row) {
    throw_error<ProtocolError>("{} rows of {} bytes from byte {} on, in memory of {}", rows, row,
                               begin, limit);
  }
  return begin + rows * row;
}

std::span<const std::uint32_t> places_at(const std::byte* at, std::uint64_t count,
                                         std::uint64_t rows) {
  const std::span<const std::uint32_t> places = {reinterpret_cast<const std::uint32_t*>(at),
                                                 static_cast<std::size_t>(count)};
  std::uint32_t largest = 0;
  for (const std::uint32_t place : places) largest = std::max(largest, place);
  if (count > 0 && largest >= rows) {
    throw_error<ProtocolError>("row {} of a matrix of {}", largest, rows);
  }
  return places;
}

}  // namespace

std::vector<TableRows> parse_lists(std::string_view lists, std::span<const std::byte> payload,
                                   std::span<const std::int64_t> widths) {
  Cutter cutter(std::as_bytes(std::span(lists)));
  if (reinterpret_cast<std::uintptr_t>(lists.data()) % kWord != 0) {
    throw_error<ProtocolError>("lists at an address that is no multiple of {}", kWord);
  }
  const std::uint64_t num_tables = word_at(cutter.take(kWord));
  if (num_tables > widths.size()) {
    throw_error<ProtocolError>("lists of {} tables, of which there are {}", num_tables,
                               widths.size());
  }
  std::vector<ListFront> fronts(num_tables);
  for (ListFront& front : fronts) {
    std::memcpy(&front, cutter.take(sizeof(front)), sizeof(front));
    const bool first = &front == fronts.data();
    if (front.table >= widths.size() || (!first && front.table <= (&front - 1)->table)) {
      throw_error<ProtocolError>("lists of table {} out of order, of {} tables", front.table,
                                 widths.size());
    }
  }
  std::vector<TableRows> tables;
  for (const ListFront& front : fronts) {
    const std::int64_t width = widths[front.table];
    TableRows rows{
        .table = front.table, .push_ids = {}, .pull_ids = {}, .push_places = {}, .pull_places = {}};
    end_of(front.push_begin, front.push_rows, width, payload.size());
    rows.rows = reinterpret_cast<const float*>(payload.data() + front.push_begin);
    rows.push_ids = ids_at(cutter.take(front.pushed, kWord), front.pushed);
    rows.push_places = places_at(cutter.take(padded(front.pushed * sizeof(std::uint32_t))),
                                 front.pushed, front.push_rows);
    rows.pull_ids = ids_at(cutter.take(front.wanted, kWord), front.wanted);
    rows.pull_places = places_at(cutter.take(padded(front.wanted * sizeof(std::uint32_t))),
                                 front.wanted, front.pull_rows);
    rows.pull_begin = front.pull_begin;
    rows.pull_end = end_of(front.pull_begin, front.pull_rows, width, SIZE_MAX / 2);
    tables.push_back(rows);
  }
  if (cutter.left() > 0) throw_error<ProtocolError>("{} bytes after the lists", cutter.left());
  return tables;
}

std::string write_lists(std::span<const TableLists> tables) {
  std::string lists;
  const auto add = [&lists](const void* from, std::size_t bytes) {
    lists.append(static_cast<const char*>(from), bytes);
    lists.resize(padded(lists.size()));
  };
  const std::uint64_t num_tables = tables.size();
  add(&num_tables, sizeof(num_tables));
  for (const TableLists& table : tables) {
    const ListFront front{table.table,      table.push_ids.size(), table.pull_ids.size(),
                          table.push_begin, table.push_rows,       table.pull_begin,
                          table.pull_rows};
    add(&front, sizeof(front));
  }
  for (const TableLists& table : tables) {
    add(table.push_ids.data(), table.push_ids.size() * sizeof(std::uint64_t));
    add(table.push_places.data(), table.push_places.size() * sizeof(std::uint32_t));
    add(table.pull_ids.data(), table.pull_ids.size() * sizeof(std::uint64_t));
    add(table.pull_places.data(), table.pull_places.size() * sizeof(std::uint32_t));
  }
  return lists;
}

std::size_t row_request_bytes(std::span<const RowSpace> tables,
                              std::span<const std::int64_t> widths) {
  std::size_t bytes = kWord;
  for (const RowSpace& table : tables) {
    bytes += (3 + table.pushed + table.wanted) * kWord +
             row_bytes(table.pushed, widths[static_cast<std::size_t>(table.table)]);
  }
  return bytes;
}

void lay_out_rows(std::span<std::byte> payload, std::span<RowSpace> tables,
                  std::span<const std::int64_t> widths) {
  TRIREME_CHECK_EQ(payload.size(), row_request_bytes(tables, widths), "space for rows");
  auto* words = reinterpret_cast<std::uint64_t*>(payload.data());
  *words++ = tables.size();
  for (const RowSpace& table : tables) {
    *words++ = table.table;
    *words++ = table.pushed;
    *words++ = table.wanted;
  }
  auto* at = reinterpret_cast<std::byte*>(words);
  for (RowSpace& table : tables) {
    table.push_ids = {reinterpret_cast<std::uint64_t*>(at), table.pushed};
    at += table.pushed * kWord;
    table.rows = reinterpret_cast<float*>(at);
    at += row_bytes(table.pushed, widths[static_cast<std::size_t>(table.table)]);
    table.pull_ids = {reinterpret_cast<std::uint64_t*>(at), table.wanted};
    at += table.wanted * kWord;
  }
}

}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_request.h"

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
    TableRows rows{.table = front.table, .push_ids = {}, .pull_ids = {}};
    rows.push_ids = ids_at(cutter.take(front.pushed, kWord), front.pushed);
    if (front.pushed > cutter.left()) throw_error<ProtocolError>("{} rows too many", front.pushed);
    rows.rows = reinterpret_cast<const float*>(cutter.take(row_bytes(front.pushed, width)));
    rows.pull_ids = ids_at(cutter.take(front.wanted, kWord), front.wanted);
    tables.push_back(rows);
  }
  if (cutter.left() > 0) throw_error<ProtocolError>("{} bytes after the rows", cutter.left());
  return tables;
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

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowRequest: the payload of a request to a slice: rows of any of its tables that are pushed, and
// ids of rows that are wanted. Also an update of a slice, which wants none.
//
//   u64 number of tables; for each, ascending: u64 table, u64 pushed, u64 wanted; then for each:
//   ids u64 [pushed], rows f32 [pushed, width] up to a multiple of 8 bytes, ids u64 [wanted]
//
// The reply's payload is the wanted rows, f32, one table after the other.
//
// Where the worker's gradients and the rows that it wants lie in memory that the server shares,
// they are used where they are: the payload is that memory, the reply's payload the other, and
// lists in the header say what is where:
//
//   u64 number of tables; for each, ascending: u64 table, pushed, wanted, and for the gradients and
//   for the wanted rows where they begin (u64, bytes) and how many rows they have (u64); then for
//   each: ids u64 [pushed], rows' numbers u32 [pushed], ids u64 [wanted], rows' numbers u32
//   [wanted], each up to a multiple of 8 bytes
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trireme::ps {

// Rows of one table, at an address that is a multiple of 8.
struct TableRows {
  std::uint64_t table = 0;
  std::span<const std::uint64_t> push_ids;
  const float* rows = nullptr;  // [push_ids.size(), width]
  std::span<const std::uint64_t> pull_ids;
  // In place: the rows' numbers from `rows` on, and from pull_begin in the reply, where the last
  // may end at pull_end. Empty: rows follow one another.
  std::span<const std::uint32_t> push_places;
  std::span<const std::uint32_t> pull_places;
  std::size_t pull_begin = 0;
  std::size_t pull_end = 0;
};

// Views of the payload's parts. widths: of tables, by number. Throws ProtocolError for bytes that
// are no request to such tables. The counts are read once: bytes that change meanwhile do no harm.
std::vector<TableRows> parse_rows(std::span<const std::byte> payload,
                                  std::span<const std::int64_t> widths);

// The same of lists, which must lie at a multiple of 8, with rows in place.
std::vector<TableRows> parse_lists(std::string_view lists, std::span<const std::byte> payload,
                                   std::span<const std::int64_t> widths);

// What lists say of one table.
struct TableLists {
  std::uint64_t table = 0;
  std::vector<std::uint64_t> push_ids, pull_ids;
  std::vector<std::uint32_t> push_places, pull_places;
  std::size_t push_begin = 0, push_rows = 0;
  std::size_t pull_begin = 0, pull_rows = 0;
};
std::string write_lists(std::span<const TableLists> tables);

// Where the parts of a request to be written lie.
struct RowSpace {
  std::uint64_t table = 0;
  std::size_t pushed = 0;
  std::size_t wanted = 0;
  // Filled by lay_out_rows().
  std::span<std::uint64_t> push_ids = {};
  float* rows = nullptr;
  std::span<std::uint64_t> pull_ids = {};
};

std::size_t row_request_bytes(std::span<const RowSpace> tables,
                              std::span<const std::int64_t> widths);
// Writes the front of a request of that many bytes, and says where the rest goes.
void lay_out_rows(std::span<std::byte> payload, std::span<RowSpace> tables,
                  std::span<const std::int64_t> widths);

}  // namespace trireme::ps

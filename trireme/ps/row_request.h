// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowRequest: the payload of a request to a slice: rows of any of its tables that are pushed, and
// ids of rows that are wanted. Also an update of a slice, which wants none.
//
//   u64 number of tables; for each, ascending: u64 table, u64 pushed, u64 wanted; then for each:
//   ids u64 [pushed], rows f32 [pushed, width] up to a multiple of 8 bytes, ids u64 [wanted]
//
// The reply's payload is the wanted rows, f32, one table after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace trireme::ps {

// Rows of one table, at an address that is a multiple of 8.
struct TableRows {
  std::uint64_t table = 0;
  std::span<const std::uint64_t> push_ids;
  const float* rows = nullptr;  // [push_ids.size(), width]
  std::span<const std::uint64_t> pull_ids;
};

// Views of the payload's parts. widths: of tables, by number. Throws ProtocolError for bytes that
// are no request to such tables. The counts are read once: bytes that change meanwhile do no harm.
std::vector<TableRows> parse_rows(std::span<const std::byte> payload,
                                  std::span<const std::int64_t> widths);

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

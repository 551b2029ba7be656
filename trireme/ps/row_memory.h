// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowMemory: the rows of a table and their ids, by number, which never move. Internal to the
// tables.
//
// In blocks that double: block 0 has rows [0, first), block k rows [first 2^(k-1), first 2^k), so
// that a row's place takes a few instructions, growth copies nothing, and a small table is small.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "trireme/ps/page_memory.h"

namespace trireme::ps {

class RowMemory {
 public:
  // Rows of that many f32.
  explicit RowMemory(std::int64_t row_floats);

  std::uint32_t rows() const { return rows_; }
  // Adds a row of zeros and returns its number. Throws std::bad_alloc; ShapeError beyond 2^31 rows.
  std::uint32_t add(std::uint64_t id);
  // row < rows().
  float* row(std::uint32_t row) const {
    return reinterpret_cast<float*>(row_bases_[block_of(row)] + std::uintptr_t{row} * stride_);
  }
  std::uint64_t id(std::uint32_t row) const {
    return reinterpret_cast<const std::uint64_t*>(id_bases_[block_of(row)])[row];
  }
  std::size_t stride_bytes() const { return stride_; }
  std::int64_t used_bytes() const {
    return static_cast<std::int64_t>(rows_ * (stride_ + sizeof(std::uint64_t)));
  }

 private:
  std::size_t block_of(std::uint32_t row) const {
    return static_cast<std::size_t>(std::bit_width(row >> first_bits_));
  }
  void add_block();

  std::size_t stride_;   // bytes from one row to the next
  unsigned first_bits_;  // block 0 has 2^first_bits_ rows
  std::uint32_t rows_ = 0;
  std::uint64_t room_ = 0;  // rows of all blocks
  // Where row 0 would lie if it were in the block.
  std::array<std::uintptr_t, 33> row_bases_ = {};
  std::array<std::uintptr_t, 33> id_bases_ = {};
  std::vector<PageMemory> memory_;
};

}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowStore: the rows of a sparse table by number, each a record of its weights and then its state,
// and the ids of the rows. Records lie in pieces of about 32 MiB that are never moved: pointers
// into them stay good, and a table grows without copying. Internal to the tables.
//
//   piece: record 0 | record 1 | ...      record: width weights | state | what rounds it up
#pragma once

#include <cstdint>
#include <vector>

#include "trireme/ps/large_pages.h"

namespace trireme::ps {

class RowStore {
 public:
  // F32 of a record's content, >= 1.
  explicit RowStore(std::int64_t content);

  std::uint32_t rows() const { return rows_; }
  // A row more, its record zeros; its number is the count of rows before. Throws Error without
  // memory, and then nothing is changed.
  std::uint32_t add(std::uint64_t id);

  float* record(std::uint32_t row) const {
    return records_[row >> piece_bits_] + std::int64_t{row & piece_mask_} * stride_;
  }
  std::uint64_t id(std::uint32_t row) const { return ids_[row >> piece_bits_][row & piece_mask_]; }
  // F32 from one record to the next.
  std::int64_t stride() const { return stride_; }
  std::int64_t memory_bytes() const;

 private:
  void add_piece();

  // Constant after construction.
  std::int64_t stride_;
  std::uint32_t piece_bits_;  // 2^piece_bits_ records in a piece
  std::uint32_t piece_mask_;

  std::uint32_t rows_ = 0;
  std::vector<float*> records_;      // of each piece
  std::vector<std::uint64_t*> ids_;  // of each piece
  std::vector<LargePages> pages_;    // two for each piece
};

}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_memory.h"

#include <algorithm>
#include <limits>

#include "trireme/base/error.h"

namespace trireme::ps {
namespace {

constexpr std::size_t kLine = 64;               // bytes of a cache line
constexpr std::size_t kFirstBlock = 64 * 1024;  // bytes of the first block, about

// Rows of a line or more begin at a line, shorter ones lie in one: 2, 4 or 8 of them, say.
std::size_t stride_of(std::size_t bytes) {
  return bytes >= kLine ? (bytes + kLine - 1) / kLine * kLine : std::bit_ceil(bytes);
}

}  // namespace

RowMemory::RowMemory(std::int64_t row_floats)
    : stride_(stride_of(static_cast<std::size_t>(row_floats) * sizeof(float))),
      first_bits_(static_cast<unsigned>(
          std::bit_width(std::max<std::size_t>(kFirstBlock / stride_, 8)) - 1)) {}

void RowMemory::add_block() {
  const std::size_t block = block_of(rows_);
  const std::uint64_t first = block == 0 ? 0 : rows_;
  const std::uint64_t rows = block == 0 ? std::uint64_t{1} << first_bits_ : first;
  PageMemory row_memory(rows * stride_), id_memory(rows * sizeof(std::uint64_t));
  memory_.reserve(memory_.size() + 2);
  row_bases_[block] = reinterpret_cast<std::uintptr_t>(row_memory.begin()) - first * stride_;
  id_bases_[block] =
      reinterpret_cast<std::uintptr_t>(id_memory.begin()) - first * sizeof(std::uint64_t);
  memory_.push_back(std::move(row_memory));
  memory_.push_back(std::move(id_memory));
  room_ += rows;
}

std::uint32_t RowMemory::add(std::uint64_t id) {
  if (rows_ == room_) {
    if (rows_ >= std::numeric_limits<std::uint32_t>::max() / 2) {
      throw_error<ShapeError>("a slice of a table with {} rows is full: take more slices", rows_);
    }
    add_block();
  }
  const std::uint32_t row = rows_++;
  reinterpret_cast<std::uint64_t*>(id_bases_[block_of(row)])[row] = id;
  return row;
}

}  // namespace trireme::ps

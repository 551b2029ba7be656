// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_store.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace trireme::ps {
namespace {

constexpr std::int64_t kLine = 16;  // f32 in a cache line
constexpr std::int64_t kPieceBytes = std::int64_t{32} << 20;

std::int64_t rounded_up(std::int64_t count, std::int64_t unit) {
  return (count + unit - 1) / unit * unit;
}

// Records that share no more cache lines than they must: short ones none with a border inside,
// long ones none at all where that costs an eighth at most.
std::int64_t stride_of(std::int64_t content) {
  if (content <= kLine) {
    return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(content)));
  }
  const std::int64_t lines = rounded_up(content, kLine);
  return lines - content <= content / 8 ? lines : rounded_up(content, 4);
}

}  // namespace

RowStore::RowStore(std::int64_t content) : stride_(stride_of(content)) {
  const std::int64_t record_bytes = stride_ * static_cast<std::int64_t>(sizeof(float));
  const auto in_piece =
      static_cast<std::uint32_t>(std::max<std::int64_t>(kPieceBytes / record_bytes, 1));
  piece_bits_ = static_cast<std::uint32_t>(std::bit_width(in_piece)) - 1;
  piece_mask_ = (std::uint32_t{1} << piece_bits_) - 1;
}

void RowStore::add_piece() {
  using enum LargePages::Use;
  const LargePages::Use use = records_.empty() ? kFilledFromFront : kAllOver;
  const std::size_t count = std::size_t{1} << piece_bits_;
  LargePages records(count * static_cast<std::size_t>(stride_) * sizeof(float), use);
  LargePages ids(count * sizeof(std::uint64_t), use);
  pages_.reserve(pages_.size() + 2);
  records_.push_back(static_cast<float*>(records.data()));
  ids_.push_back(static_cast<std::uint64_t*>(ids.data()));
  pages_.push_back(std::move(records));
  pages_.push_back(std::move(ids));
}

std::uint32_t RowStore::add(std::uint64_t id) {
  if (rows_ >> piece_bits_ == records_.size()) add_piece();
  ids_[rows_ >> piece_bits_][rows_ & piece_mask_] = id;
  return rows_++;
}

std::int64_t RowStore::memory_bytes() const {
  const auto row_bytes =
      stride_ * static_cast<std::int64_t>(sizeof(float)) + std::int64_t{sizeof(std::uint64_t)};
  return std::int64_t{rows_} * row_bytes;
}

}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Shard: the pieces of the flat buffer that this rank updates, and how work on them is cut among
// threads. Internal to the optimizers.
//
//   shard.for_each_range([&](const ShardRange& range) {           // on the pool's threads
//     for_each_part(ranges, range.begin, range.end, [&](auto begin, auto end, bool decays) {...});
//   });
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "trireme/optim/flat_layout.h"
#include "trireme/optim/optimizer.h"

namespace trireme::optim {

// Elements [begin, end) of the flat buffer, inside of one piece; they begin at a block.
struct ShardRange {
  std::size_t piece = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t in_piece = 0;  // where they begin in the piece, and in the shard
  std::int64_t in_shard = 0;
  std::int64_t count() const { return end - begin; }
  // Elements [from, to) of it.
  ShardRange part(std::int64_t from, std::int64_t to) const {
    return {piece, begin + from, begin + to, in_piece + from, in_shard + from};
  }
};

// Constant after construction.
class Shard {
 public:
  // Throws ShapeError for segments or parameters that are out of order.
  explicit Shard(const OptimizerSpace& space);

  const std::vector<ShardPiece>& pieces() const { return pieces_; }
  std::int64_t size() const { return size_; }
  c10::Device device() const { return device_; }

  // Calls f once for each of the ranges that together are the shard, none longer than kRange, on
  // the pool's threads, without denormals. Whatever the number of threads, ranges are the same.
  static constexpr std::int64_t kRange = 16384;  // 4 arrays of 64 KiB stay in a core's L2
  void for_each_range(const std::function<void(const ShardRange&)>& f) const;

  // Throws ShapeError unless there are buffers for each piece, of its size, all with a working copy
  // or none.
  void check(std::span<const PieceUpdate> buffers, bool with_gradients) const;

 private:
  void check_buffer(const char* what, std::size_t piece, const at::Tensor& buffer,
                    at::ScalarType dtype) const;

  std::vector<ShardPiece> pieces_;
  std::vector<ShardRange> ranges_;
  std::int64_t size_ = 0;
  c10::Device device_;
};

// Elements [begin, end) of the flat buffer.
struct ElementRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// What decays, ascending; neighbours are one range.
std::vector<ElementRange> decaying_ranges(const std::vector<OptimizerParameter>& parameters);

// Calls f(begin, end, inside) for the parts of [begin, end) that lie outside and inside of the
// ranges (ascending, disjoint), in order; none is empty.
template <class F>
void for_each_part(const std::vector<ElementRange>& ranges, std::int64_t begin, std::int64_t end,
                   F f) {
  auto range = std::upper_bound(
      ranges.begin(), ranges.end(), begin,
      [](std::int64_t position, const ElementRange& r) { return position < r.end; });
  for (std::int64_t at = begin; at < end;) {
    const bool inside = range != ranges.end() && range->begin <= at;
    const std::int64_t edge = range == ranges.end() ? end : inside ? range->end : range->begin;
    const std::int64_t stop = std::min(edge, end);
    f(at, stop, inside);
    at = stop;
    if (inside) ++range;
  }
}

}  // namespace trireme::optim

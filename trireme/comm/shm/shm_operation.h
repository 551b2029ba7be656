// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One collective under way in the shm engine, and the algorithms. docs/collectives.md has the
// reasoning; each implementation begins with what is cut into what.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/shm/shm_segment.h"
#include "trireme/comm/world_state.h"

namespace trireme {

class ShmOperation {
 public:
  // All must outlive it.
  ShmOperation(const GroupScope& scope, ShmSegment& segment, const Collective& collective,
               const Deadline& deadline, bool may_be_direct)
      : scope_(scope),
        segment_(segment),
        collective_(collective),
        deadline_(deadline),
        may_be_direct_(may_be_direct) {}

  const Collective& collective() const { return collective_; }
  const Signature& signature() const { return collective_.signature; }
  const GroupScope& scope() const { return scope_; }
  int rank() const { return scope_.rank; }
  int size() const { return scope_.size(); }
  std::size_t others() const { return static_cast<std::size_t>(size() - 1); }

  // ShmHalf::kBytes each; see ShmSegment.
  std::byte* own() { return segment_.own().bytes; }
  const std::byte* published(int rank) const { return segment_.published(rank).bytes; }
  // One barrier. The first of an operation compares what the ranks ask for.
  void meet();

  // Instead of the first meet(), with what the others are to touch where it is: `bytes` at `data`.
  // True when all ranks' data can be reached. Afterwards data(rank) is where. Only where
  // may_be_direct(), which is the same on all ranks, and only with another meet() at the end: until
  // then the owners keep what they told of.
  bool meet_directly(const void* data, std::size_t bytes) {
    if (!meet_and_tell(data, bytes)) return false;
    reach(data);
    return true;
  }
  // Its halves, for operations that decide after the meeting: reach() only where all ranks do.
  bool meet_and_tell(const void* data, std::size_t bytes);
  void reach(const void* own);
  bool may_be_direct() const { return may_be_direct_; }
  std::byte* data(int rank) const { return data_[static_cast<std::size_t>(rank)].get(); }
  // After meet(): whether the next operation of the group may be direct.
  bool any_has_regions() const { return any_has_regions_; }

  void count_sent(std::size_t bytes) { bytes_sent_ += static_cast<std::int64_t>(bytes); }
  std::int64_t bytes_sent() const { return bytes_sent_; }

 private:
  const GroupScope& scope_;
  ShmSegment& segment_;
  const Collective& collective_;
  const Deadline& deadline_;
  const bool may_be_direct_;
  bool compared_ = false;
  bool any_has_regions_ = false;
  ShmLocation location_;
  std::vector<std::shared_ptr<std::byte>> data_;  // by rank
  std::int64_t bytes_sent_ = 0;
};

// shm_reductions.cc: kAllReduce and kReduce.
void shm_reduce(ShmOperation& operation);
// shm_reduce_scatter.cc: with and without partial.
void shm_reduce_scatter(ShmOperation& operation);
// shm_moves.cc: what moves data and computes nothing.
void shm_move(ShmOperation& operation);

// Up to here a barrier costs more than copying twice, and operations are not direct.
constexpr std::size_t kSmallBytes = 8 << 10;

// The most of one part or slice that is published at once. Two ranks with a core each, 64 MiB f32,
// medians with 128, 256 and 512 KiB: all_reduce 10.7, 9.9 and 10.2 ms, all_to_all 8.9, 8.6 and
// 9.1 ms. Below 64 KiB barriers show; above 256 KiB what two ranks write and read of one another
// no longer fits a cache of 2 MiB.
constexpr std::size_t kMostPlaceBytes = std::size_t{256} << 10;

// Where parts stand in a half starts at a cache line, so that ranks do not share lines.
constexpr std::size_t kCacheLineBytes = 64;
constexpr std::size_t round_down_to_line(std::size_t bytes) {
  return bytes / kCacheLineBytes * kCacheLineBytes;
}
constexpr std::size_t round_up_to_line(std::size_t bytes) {
  return round_down_to_line(bytes + kCacheLineBytes - 1);
}

// The first address of an element of a caller's buffer.
inline std::byte* element(const Buffer& buffer, std::int64_t index) {
  return static_cast<std::byte*>(buffer.data) +
         static_cast<std::size_t>(index) * dtype_bytes(buffer.dtype);
}
inline const std::byte* element(const ConstBuffer& buffer, std::int64_t index) {
  return static_cast<const std::byte*>(buffer.data) +
         static_cast<std::size_t>(index) * dtype_bytes(buffer.dtype);
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The memory through which the ranks of one group on one host run their collectives, and the
// barrier inside it. The first rank of the group makes it and says where it is.
//
// The one rule about its contents: barriers are numbered. What a rank writes before barrier b
// stands in half b mod 2 of its own part. The others may read it from when they have passed barrier
// b until they arrive at barrier b + 1. Since a rank writes that half again only after it has
// passed barrier b + 1, nobody writes what is being read, and one barrier per exchange is enough.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/shm/shared_memory.h"
#include "trireme/comm/shm/shm_regions.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// One half of a rank's part: what it publishes with one barrier.
struct ShmHalf {
  static constexpr std::size_t kBytes = std::size_t{512} << 10;

  // Of the first barrier of an operation.
  struct Opening {
    Signature signature;
    bool has_regions;  // whether the rank has memory that others can reach
    ShmLocation location;
  };
  alignas(64) Opening opening;
  // A segment's elements, or what was reduced of it.
  alignas(64) std::byte bytes[kBytes];
};

class ShmSegment {
 public:
  // Collective over the group, for its first operation. Throws CommError when memory or file
  // descriptors are used up, or when a rank cannot open another's; TimeoutError when a rank does
  // not come.
  ShmSegment(const GroupScope& scope, const Signature& first, const Deadline& deadline);
  ~ShmSegment();
  ShmSegment(const ShmSegment&) = delete;
  ShmSegment& operator=(const ShmSegment&) = delete;

  // The half that this rank may write now.
  ShmHalf& own() { return half(scope_.rank, next_barrier_); }
  // What a rank published with the barrier passed last.
  const ShmHalf& published(int rank) const { return half(rank, next_barrier_ - 1); }

  // Publishes own() and waits for all ranks to have done the same. Errors: see Engine::run().
  void barrier(const Signature& signature, const Deadline& deadline);

 private:
  struct RankPart;

  RankPart& part(int rank) const;
  ShmHalf& half(int rank, std::uint32_t barrier) const;
  void wait_for(int rank, const Signature& signature, const Deadline& deadline);
  bool reached(std::uint32_t arrived) const;
  std::vector<int> missing() const;
  void wake_sleepers() const;

  const GroupScope& scope_;
  const bool spin_;
  std::uint32_t next_barrier_ = 1;
  SharedMemory memory_;  // a RankPart for each rank
  int subscription_ = -1;
};

}  // namespace trireme

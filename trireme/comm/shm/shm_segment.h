// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The memory that the ranks of one group on one host share, and the barrier inside it.
//
// It is an anonymous file (memfd) without a name in any file system, so a killed job leaves nothing
// behind. Its pages are reserved when it is made, so that a full machine is an error there and not
// a SIGBUS later. The first rank of the group makes it and says where it is; the others open it
// through /proc/<pid>/fd.
//
// The one rule about its contents: barriers are numbered. What a rank writes before barrier b
// stands in half b mod 2 of its own part. The others may read it from when they have passed barrier
// b until they arrive at barrier b + 1. Since a rank writes that half again only after it has
// passed barrier b + 1, nobody writes what is being read, and one barrier per exchange is enough.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// One half of a rank's part: what it publishes with one barrier.
struct ShmHalf {
  static constexpr std::size_t kBytes = std::size_t{512} << 10;

  alignas(64) Signature signature;
  // A segment's elements, or what was reduced of it.
  alignas(64) std::byte bytes[kBytes];
};

class ShmSegment {
 public:
  // Collective over the group. Throws CommError when memory or file descriptors are used up, or
  // when a rank cannot open another's; TimeoutError when a rank does not come.
  ShmSegment(const GroupScope& scope, const Deadline& deadline);
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
  struct Unmap {
    std::size_t bytes;
    void operator()(RankPart* parts) const;
  };

  void create();
  void open(const std::string& where, int creator);
  void map(int fd);
  void wait_for(int rank, const Signature& signature, const Deadline& deadline);
  std::vector<int> missing() const;
  bool arrived(int rank) const;
  ShmHalf& half(int rank, std::uint32_t barrier) const;
  void wake_sleepers() const;

  const GroupScope& scope_;
  const std::size_t bytes_;
  const bool spin_;
  std::uint32_t next_barrier_ = 1;
  std::unique_ptr<RankPart[], Unmap> parts_{nullptr, Unmap{0}};  // size() of them
  FileDescriptor fd_;  // creator only, until all have opened it
  int subscription_ = -1;
};

}  // namespace trireme

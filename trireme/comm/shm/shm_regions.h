// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Memory of callers that other ranks of the host can reach: what Group::allocate_shared() gives
// out.
//
// A region is shared memory of its own. Its owner tells where data lies with the operation that the
// data is for; whoever needs it maps the region when it first hears of it and keeps the map. When
// the owner frees a region its pages go back to the machine at once; the others' maps of it, empty
// by then, go when they next map one of the same owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "trireme/comm/shm/shared_memory.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Where a rank's data lies, for the other ranks of its host. Stands in shared memory as it is.
struct ShmLocation {
  enum class Place : std::uint32_t {
    kPrivate,  // where nobody else can reach it
    kNowhere,  // there is no data
    kRegion,
  };
  Place place = Place::kPrivate;
  std::int32_t process = 0;
  std::int32_t descriptor = -1;  // of that process
  std::uint32_t unused = 0;
  std::uint64_t region = 0;  // different for every region of a process
  std::uint64_t region_bytes = 0;
  std::uint64_t offset = 0;  // of the data, in the region
};

// One for all groups of a world. Any thread may call any function.
class ShmRegions : public std::enable_shared_from_this<ShmRegions> {
 public:
  // Zeros, reserved. The memory keeps the regions alive. Throws CommError when memory or
  // descriptors are used up.
  std::shared_ptr<void> allocate(const GroupScope& scope, std::size_t bytes);
  // Whether this rank has any.
  bool empty() const;
  // Of bytes at data; kNowhere for no bytes.
  ShmLocation locate(const void* data, std::size_t bytes) const;
  // The data that another rank of the group has at that place of kind kRegion. Stays mapped as long
  // as the pointer lives. Throws CommError.
  std::shared_ptr<std::byte> reach(const GroupScope& scope, int rank, const ShmLocation& location);

 private:
  struct Region {
    std::uint64_t number = 0;
    std::size_t bytes = 0;  // of data
    SharedMemory memory;
  };
  using Key = std::pair<int, std::uint64_t>;  // rank of the world, number

  void free(const std::byte* data);
  void forget_freed(int world_rank);

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::uint64_t next_number_ = 0;
  std::map<const std::byte*, Region> own_;  // by first byte of data
  std::map<Key, std::shared_ptr<SharedMemory>> others_;
};

}  // namespace trireme

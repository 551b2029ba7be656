// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The memories of one arena, for the clients that use it. Lives as long as one of its buffers or
// clients.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "trireme/comm/rpc/memory.h"
#include "trireme/comm/rpc/wire.h"

namespace trireme::detail {

// Any thread may call any function.
class ArenaRegions : public std::enable_shared_from_this<ArenaRegions> {
 public:
  // Throws CommError when memory or descriptors are used up.
  ArenaRegions() : probe_(ArenaMemory::make(kProbe, 0)) {}

  std::shared_ptr<void> allocate(std::size_t bytes);
  void leave_to_readers() { left_to_readers_ = true; }
  // Nowhere unless all of the bytes lie in one memory of the arena.
  RpcPlace locate(const void* data, std::size_t bytes) const;
  // Of a memory that locate() named; none when it was freed since.
  std::optional<MemoryNotice> notice(std::uint64_t memory) const;
  // Of an empty memory, with which a server tries whether it can map this process' memory at all.
  MemoryNotice probe() const { return probe_.notice(); }

 private:
  static constexpr std::uint64_t kProbe = 1;
  struct Region {
    std::uint64_t number;
    ArenaMemory memory;
  };
  void free(const std::byte* data);

  // Constant after construction.
  const ArenaMemory probe_;

  std::atomic<bool> left_to_readers_{false};

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::uint64_t next_number_ = kProbe + 1;
  std::map<const std::byte*, Region> regions_;  // by first byte
  std::map<std::uint64_t, const std::byte*> by_number_;
};

}  // namespace trireme::detail

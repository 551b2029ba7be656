// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// BlockCache: memory for tensors that is kept when it is freed, and given again to the next that
// asks for about as much. A training step asks for the same sizes each time, so from the second on
// it touches no fresh page; fresh pages cost more than the kernels that fill them.
//
// Sizes are rounded up to a class: multiples of 64 bytes up to 4 KiB, then eight classes for each
// doubling, so at most an eighth of a block is unused. A free block waits in its class's list, the
// last freed on top, since it is warmest. Blocks are neither split nor merged.
//
// Blocks up to 4 MiB are carved one after the other from arenas of 32 MiB; larger ones are mappings
// of their own. Both lie in huge pages where the system has them. Layout, addresses ascending:
//
//   arena:    64 bytes of its own (how many blocks are in use) | block | block | ...
//   mapping:  block
//   block:    64 bytes header (size class, bytes asked for, category) | the caller's bytes
//
// Under AddressSanitizer free blocks, the ends of classes and half of each header are poisoned.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {

// Where a BlockCache has its memory from.
class PageSource {
 public:
  virtual ~PageSource() = default;
  // Zeroed memory that starts at a multiple of alignment (a power of two); null when there is none.
  virtual void* map(std::size_t bytes, std::size_t alignment) = 0;
  // Exactly what map() returned.
  virtual void unmap(void* memory, std::size_t bytes) noexcept = 0;
};

// The system's, with huge pages where it grants them.
PageSource& system_pages();

struct BlockCacheStats {
  std::int64_t in_use_bytes = 0;   // asked for and not freed
  std::int64_t cached_bytes = 0;   // in free blocks
  std::int64_t mapped_bytes = 0;   // held from the source now
  std::int64_t fetched_bytes = 0;  // taken from the source so far; grows only
};

// Any thread may call anything; a block may be freed by another thread than took it.
class BlockCache {
 public:
  static constexpr std::size_t kAlignment = 64;  // of blocks: a cache line, an AVX-512 vector

  // Both must outlive it, and it its blocks.
  BlockCache(PageSource& pages, MemoryLedger& ledger) : pages_(pages), ledger_(ledger) {}
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;
  ~BlockCache() { release_cached(); }

  // At least bytes >= 1, of unknown content. Where the source has nothing more, cached memory is
  // given back to it once. Throws Error when that does not help.
  void* take(std::size_t bytes, MemoryCategory category);
  // Only what take() returned, once. Throws InternalError for anything else that it can tell.
  void give_back(void* block);
  // Gives back to the source what is free: mappings, and arenas without a block in use.
  void release_cached();
  BlockCacheStats stats() const;

  // The bytes that a block for so many really has.
  static std::size_t block_bytes(std::size_t bytes);

 private:
  struct Header;
  struct Arena;
  // The classes of 64 bytes up to 2^47, the end of a process's address space.
  static constexpr std::size_t kNumClasses = 64 + 8 * (47 - 12);

  static std::size_t class_of(std::size_t bytes);
  static std::size_t class_bytes(std::size_t size_class);
  static Arena* arena_of(Header* header);
  Header* try_take(std::size_t size_class);
  Header* carve(std::size_t size_class);
  Header* map_alone(std::size_t size_class);
  void* fetch(std::size_t bytes, std::size_t alignment);
  void return_memory(void* memory, std::size_t bytes);
  void release_free_blocks();
  [[noreturn]] static void out_of_memory(std::size_t bytes, const BlockCacheStats& stats);

  PageSource& pages_;
  MemoryLedger& ledger_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::array<Header*, kNumClasses> free_{};  // lists, by class
  std::vector<Arena*> arenas_;               // the last one is carved from
  BlockCacheStats stats_;
};

}  // namespace trireme

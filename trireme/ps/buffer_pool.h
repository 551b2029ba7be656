// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// BufferPool: memory for updates, from the process's arena, so that a backup on the same host reads
// it in place. Kept and given out again: new pages cost more than what is written to them. Very
// large ones, whole states that are read once, are not kept.
#pragma once

#include <bit>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "trireme/comm/rpc/arena.h"

namespace trireme::ps {

// Any thread may call any function. Must outlive its buffers.
class BufferPool {
 public:
  // Goes back to the pool when it ends.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(BufferPool& pool, SharedBuffer memory, std::size_t bytes)
        : pool_(&pool), memory_(std::move(memory)), bytes_(bytes) {}
    Buffer(Buffer&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          memory_(std::move(other.memory_)),
          bytes_(std::exchange(other.bytes_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(memory_, other.memory_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Buffer() {
      if (pool_ != nullptr) pool_->take_back(std::move(memory_));
    }
    std::span<std::byte> bytes() const { return {static_cast<std::byte*>(memory_.data()), bytes_}; }

   private:
    BufferPool* pool_ = nullptr;
    SharedBuffer memory_;
    std::size_t bytes_ = 0;
  };

  explicit BufferPool(RpcArena& arena) : arena_(arena) {}

  // What was there before is still there. Throws CommError when memory is used up.
  Buffer get(std::size_t bytes) {
    if (bytes > kMostKept) return {*this, arena_.allocate(bytes), bytes};
    const std::size_t size = std::bit_ceil(std::max<std::size_t>(bytes, kSmallest));
    {
      const std::lock_guard lock(mutex_);
      std::vector<SharedBuffer>& free = free_[size];
      if (!free.empty()) {
        SharedBuffer memory = std::move(free.back());
        free.pop_back();
        return {*this, std::move(memory), bytes};
      }
    }
    return {*this, arena_.allocate(size), bytes};
  }

 private:
  static constexpr std::size_t kSmallest = std::size_t{64} << 10;
  static constexpr std::size_t kMostKept = std::size_t{64} << 20;

  void take_back(SharedBuffer memory) {
    if (memory.bytes() > kMostKept) return;
    const std::lock_guard lock(mutex_);
    const std::size_t size = memory.bytes();
    free_[size].push_back(std::move(memory));
  }

  RpcArena& arena_;
  std::mutex mutex_;
  std::map<std::size_t, std::vector<SharedBuffer>> free_;  // by size; guarded by mutex_
};

}  // namespace trireme::ps

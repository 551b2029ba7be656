// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_regions.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <utility>

namespace trireme {
namespace {

// A page before the data, so that the data starts at one.
constexpr std::size_t kHeaderBytes = 4096;
struct Header {
  std::atomic<std::uint32_t> freed;
};

Header& header_of(const SharedMemory& memory) { return *reinterpret_cast<Header*>(memory.data()); }

SharedMemory::Identity identity_of(int world_rank, std::uint64_t number) {
  // Groups have purposes from -1 on.
  return {number, -2 - std::int64_t{world_rank}};
}

}  // namespace

std::shared_ptr<void> ShmRegions::allocate(const GroupScope& scope, std::size_t bytes) {
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = next_number_++;
  }
  const std::size_t all = kHeaderBytes + bytes;
  Region region{number, bytes,
                SharedMemory::make(scope, identity_of(scope.world->rank, number), all)};
  region.memory.reserve(scope, 0, all);
  std::byte* data = region.memory.data() + kHeaderBytes;
  {
    const std::lock_guard lock(mutex_);
    own_.emplace(data, std::move(region));
  }
  return {data, [self = shared_from_this()](void* memory) {
            self->free(static_cast<const std::byte*>(memory));
          }};
}

void ShmRegions::free(const std::byte* data) {
  Region region;
  {
    const std::lock_guard lock(mutex_);
    const auto found = own_.find(data);
    region = std::move(found->second);
    own_.erase(found);
  }
  header_of(region.memory).freed.store(1, std::memory_order_release);
  region.memory.give_back(kHeaderBytes, region.bytes);
}

bool ShmRegions::empty() const {
  const std::lock_guard lock(mutex_);
  return own_.empty();
}

ShmLocation ShmRegions::locate(const void* data, std::size_t bytes) const {
  ShmLocation location;
  if (bytes == 0) {
    location.place = ShmLocation::Place::kNowhere;
    return location;
  }
  const auto* first = static_cast<const std::byte*>(data);
  const std::lock_guard lock(mutex_);
  auto after = own_.upper_bound(first);
  if (after == own_.begin()) return location;
  const auto& [start, region] = *--after;
  const auto offset = static_cast<std::size_t>(first - start);
  if (offset > region.bytes || bytes > region.bytes - offset) return location;
  return {ShmLocation::Place::kRegion,
          getpid(),
          region.memory.descriptor(),
          0,
          region.number,
          region.bytes,
          offset};
}

std::shared_ptr<std::byte> ShmRegions::reach(const GroupScope& scope, int rank,
                                             const ShmLocation& location) {
  const int world_rank = scope.world_ranks[static_cast<std::size_t>(rank)];
  const Key key{world_rank, location.region};
  const std::lock_guard lock(mutex_);
  const auto found = others_.find(key);
  std::shared_ptr<SharedMemory> memory = found == others_.end() ? nullptr : found->second;
  if (memory == nullptr) {
    memory = std::make_shared<SharedMemory>(SharedMemory::open(
        scope, identity_of(world_rank, location.region), kHeaderBytes + location.region_bytes,
        fmt::format("/proc/{}/fd/{}", location.process, location.descriptor), rank));
    memory->close_descriptor();
    memory->populate();
    // Before this one is among them: an owner whose operation has failed may have freed it by now.
    forget_freed(world_rank);
    others_.emplace(key, memory);
  }
  return {memory, memory->data() + kHeaderBytes + location.offset};
}

void ShmRegions::forget_freed(int world_rank) {
  auto at = others_.lower_bound({world_rank, 0});
  while (at != others_.end() && at->first.first == world_rank) {
    const bool freed = header_of(*at->second).freed.load(std::memory_order_acquire) != 0;
    at = freed ? others_.erase(at) : std::next(at);
  }
}

}  // namespace trireme

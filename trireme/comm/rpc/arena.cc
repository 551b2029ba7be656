// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/rpc/arena.h"

#include <utility>

#include "trireme/comm/rpc/arena_regions.h"

namespace trireme {
namespace detail {

std::shared_ptr<void> ArenaRegions::allocate(std::size_t bytes) {
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = next_number_++;
  }
  Region region{number, ArenaMemory::make(number, bytes)};
  std::byte* data = region.memory.data();
  {
    const std::lock_guard lock(mutex_);
    regions_.emplace(data, std::move(region));
    by_number_.emplace(number, data);
  }
  return {data, [self = shared_from_this()](void* memory) {
            self->free(static_cast<const std::byte*>(memory));
          }};
}

void ArenaRegions::free(const std::byte* data) {
  std::optional<Region> region;
  {
    const std::lock_guard lock(mutex_);
    const auto found = regions_.find(data);
    region = std::move(found->second);
    by_number_.erase(region->number);
    regions_.erase(found);
  }
  if (left_to_readers_) return;
  region->memory.free();
}

RpcPlace ArenaRegions::locate(const void* data, std::size_t bytes) const {
  const auto* first = static_cast<const std::byte*>(data);
  const std::lock_guard lock(mutex_);
  auto after = regions_.upper_bound(first);
  if (bytes == 0 || after == regions_.begin()) return {};
  const auto& [start, region] = *--after;
  const auto offset = static_cast<std::size_t>(first - start);
  const std::size_t size = region.memory.bytes();
  if (offset > size || bytes > size - offset) return {};
  return {region.number, offset};
}

std::optional<MemoryNotice> ArenaRegions::notice(std::uint64_t memory) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_number_.find(memory);
  if (found == by_number_.end()) return std::nullopt;
  return regions_.at(found->second).memory.notice();
}

}  // namespace detail

RpcArena::RpcArena() : regions_(std::make_shared<detail::ArenaRegions>()) {}
RpcArena::~RpcArena() = default;

void RpcArena::leave_to_readers() { regions_->leave_to_readers(); }

SharedBuffer RpcArena::allocate(std::size_t bytes) {
  if (bytes == 0) return {};
  return {regions_->allocate(bytes), bytes};
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/memory/caching_allocator.h"

#include <c10/core/CPUAllocator.h>

#include "trireme/ops/torch_version.h"

namespace trireme {
namespace {

// Never destroyed: tensors of static objects end after main().
BlockCache& blocks() {
  static auto* const cache = new BlockCache(system_pages(), process_memory());
  return *cache;
}

void free_block(void* block) {
  if (block != nullptr) blocks().give_back(block);
}

// The context of a DataPtr is the block itself, as raw_allocate() asks for.
class CachingAllocator final : public TorchAllocator {
 public:
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }

 private:
  c10::DataPtr allocate_bytes(std::size_t bytes) const override {
    void* const block = bytes > 0 ? blocks().take(bytes, current_memory_category()) : nullptr;
    return {block, block, &free_block, c10::Device(c10::DeviceType::CPU)};
  }
};

}  // namespace

void install_caching_allocator() {
  // Above the default's 0 and whatever a mobile build sets.
  constexpr std::uint8_t kPriority = 255;
  static const bool installed = [] {
    c10::SetCPUAllocator(new CachingAllocator, kPriority);
    return true;
  }();
  static_cast<void>(installed);
}

BlockCacheStats caching_allocator_stats() { return blocks().stats(); }

void release_cached_memory() { blocks().release_cached(); }

}  // namespace trireme

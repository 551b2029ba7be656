// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/memory/block_cache.h"

#include <sys/mman.h>

#include <bit>
#include <new>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>  // its macros do nothing without AddressSanitizer
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace trireme {
namespace {

constexpr std::size_t kFineLimit = 4096;  // classes are multiples of 64 bytes up to here
constexpr std::size_t kFineStep = 64;
constexpr std::size_t kFineClasses = kFineLimit / kFineStep;
constexpr std::size_t kStepsPerDoubling = 8;
constexpr std::size_t kArenaBytes = std::size_t{32} << 20;
constexpr std::size_t kLargestCarved = std::size_t{4} << 20;
constexpr std::size_t kLargest = std::size_t{1} << 47;   // a process's address space on x86-64
constexpr std::size_t kHugePage = std::size_t{2} << 20;  // of x86-64 and of 4 KiB-page arm64
constexpr std::size_t kPage = 4096;

constexpr std::uint32_t kInUse = 0x54524d31;  // no pattern that tensors are likely to hold
constexpr std::uint32_t kFree = 0x54524d30;

std::byte* offset(void* memory, std::size_t bytes) {
  return static_cast<std::byte*>(memory) + bytes;
}

std::size_t whole_pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

class SystemPages final : public PageSource {
 public:
  // Maps more than asked for and cuts off what is before and after the aligned part.
  void* map(std::size_t bytes, std::size_t alignment) override {
    void* const whole = mmap(nullptr, bytes + alignment, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole == MAP_FAILED) return nullptr;
    const auto address = reinterpret_cast<std::uintptr_t>(whole);
    const std::size_t before = (alignment - address % alignment) % alignment;
    std::byte* const memory = offset(whole, before);
    if (before > 0) munmap(whole, before);
    if (alignment > before) munmap(memory + bytes, alignment - before);
    madvise(memory, bytes, MADV_HUGEPAGE);  // refused where there are none: small pages then
    return memory;
  }
  void unmap(void* memory, std::size_t bytes) noexcept override { munmap(memory, bytes); }
};

}  // namespace

// The second half is never touched: under AddressSanitizer it stands between two blocks.
struct BlockCache::Header {
  Header* next;  // of the list, while it is free
  std::size_t asked_bytes;
  std::uint32_t state;
  std::uint16_t size_class;
  MemoryCategory category;

  static constexpr std::size_t kBytes = kAlignment;
  void* data() { return offset(this, kBytes); }
  static Header* of(void* data) { return reinterpret_cast<Header*>(offset(data, 0) - kBytes); }
};

struct BlockCache::Arena {
  std::size_t blocks_in_use = 0;
  std::size_t carved_bytes = kAlignment;  // from the front, with this struct
};

PageSource& system_pages() {
  static auto* const pages = new SystemPages;  // tensors of static objects end after main()
  return *pages;
}

std::size_t BlockCache::class_of(std::size_t bytes) {
  if (bytes <= kFineLimit) return (bytes - 1) / kFineStep;
  const auto doubling = static_cast<std::size_t>(std::bit_width(bytes - 1)) - 1;
  const std::size_t base = std::size_t{1} << doubling;
  const std::size_t step = base / kStepsPerDoubling;
  constexpr std::size_t kFirstDoubling = std::bit_width(kFineLimit) - 1;
  return kFineClasses + (doubling - kFirstDoubling) * kStepsPerDoubling + (bytes - 1 - base) / step;
}

std::size_t BlockCache::class_bytes(std::size_t size_class) {
  if (size_class < kFineClasses) return (size_class + 1) * kFineStep;
  const std::size_t coarse = size_class - kFineClasses;
  const std::size_t base = kFineLimit << (coarse / kStepsPerDoubling);
  return base + (coarse % kStepsPerDoubling + 1) * (base / kStepsPerDoubling);
}

std::size_t BlockCache::block_bytes(std::size_t bytes) { return class_bytes(class_of(bytes)); }

// Null for a mapping of one block.
BlockCache::Arena* BlockCache::arena_of(Header* header) {
  if (class_bytes(header->size_class) > kLargestCarved) return nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(header);
  return reinterpret_cast<Arena*>(offset(header, 0) - address % kArenaBytes);
}

void* BlockCache::take(std::size_t bytes, MemoryCategory category) {
  TRIREME_CHECK_LT(std::size_t{0}, bytes, "an empty block");
  Header* header = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (bytes > kLargest) out_of_memory(bytes, stats_);
    header = try_take(class_of(bytes));
    if (header == nullptr) {
      const BlockCacheStats before = stats_;
      release_free_blocks();
      header = try_take(class_of(bytes));
      if (header == nullptr) out_of_memory(bytes, before);
    }
    header->asked_bytes = bytes;
    header->category = category;
    header->state = kInUse;
    if (Arena* arena = arena_of(header)) ++arena->blocks_in_use;
    stats_.in_use_bytes += static_cast<std::int64_t>(bytes);
  }
  ASAN_UNPOISON_MEMORY_REGION(header->data(), bytes);
  ledger_.add(category, static_cast<std::int64_t>(bytes));
  return header->data();
}

void BlockCache::give_back(void* block) {
  Header* const header = Header::of(block);
  const std::lock_guard lock(mutex_);
  TRIREME_ASSERT(header->state == kInUse,
                 "memory at {} is freed {}: something wrote in front of it, or it is not of this "
                 "allocator",
                 fmt::ptr(block), header->state == kFree ? "twice" : "but its header is damaged");
  header->state = kFree;
  const std::size_t capacity = class_bytes(header->size_class);
  ASAN_POISON_MEMORY_REGION(block, capacity);
  const auto asked = static_cast<std::int64_t>(header->asked_bytes);
  ledger_.remove(header->category, asked);
  stats_.in_use_bytes -= asked;
  stats_.cached_bytes += static_cast<std::int64_t>(capacity);
  if (Arena* arena = arena_of(header)) --arena->blocks_in_use;
  header->next = std::exchange(free_[header->size_class], header);
}

void BlockCache::release_cached() {
  const std::lock_guard lock(mutex_);
  release_free_blocks();
}

BlockCacheStats BlockCache::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

// A free block, or a new one; null when the source has nothing.
BlockCache::Header* BlockCache::try_take(std::size_t size_class) {
  Header* header = free_[size_class];
  if (header == nullptr) {
    return class_bytes(size_class) > kLargestCarved ? map_alone(size_class) : carve(size_class);
  }
  free_[size_class] = header->next;
  stats_.cached_bytes -= static_cast<std::int64_t>(class_bytes(size_class));
  return header;
}

// What is left of an arena when the next block does not fit stays unused, and untouched.
BlockCache::Header* BlockCache::carve(std::size_t size_class) {
  const std::size_t bytes = Header::kBytes + class_bytes(size_class);
  if (arenas_.empty() || arenas_.back()->carved_bytes + bytes > kArenaBytes) {
    void* const memory = fetch(kArenaBytes, kArenaBytes);
    if (memory == nullptr) return nullptr;
    ASAN_UNPOISON_MEMORY_REGION(memory, sizeof(Arena));
    arenas_.push_back(new (memory) Arena);
  }
  Arena* const arena = arenas_.back();
  void* const memory =
      offset(arena, std::exchange(arena->carved_bytes, arena->carved_bytes + bytes));
  ASAN_UNPOISON_MEMORY_REGION(memory, sizeof(Header));
  auto* const header = new (memory) Header{};
  header->size_class = static_cast<std::uint16_t>(size_class);
  return header;
}

BlockCache::Header* BlockCache::map_alone(std::size_t size_class) {
  void* const memory = fetch(whole_pages(Header::kBytes + class_bytes(size_class)), kHugePage);
  if (memory == nullptr) return nullptr;
  ASAN_UNPOISON_MEMORY_REGION(memory, sizeof(Header));
  auto* const header = new (memory) Header{};
  header->size_class = static_cast<std::uint16_t>(size_class);
  return header;
}

void* BlockCache::fetch(std::size_t bytes, std::size_t alignment) {
  void* const memory = pages_.map(bytes, alignment);
  if (memory == nullptr) return nullptr;
  stats_.mapped_bytes += static_cast<std::int64_t>(bytes);
  stats_.fetched_bytes += static_cast<std::int64_t>(bytes);
  ASAN_POISON_MEMORY_REGION(memory, bytes);
  return memory;
}

void BlockCache::return_memory(void* memory, std::size_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
  stats_.mapped_bytes -= static_cast<std::int64_t>(bytes);
  pages_.unmap(memory, bytes);
}

void BlockCache::release_free_blocks() {
  for (std::size_t size_class = 0; size_class < kNumClasses; ++size_class) {
    Header* header = std::exchange(free_[size_class], nullptr);
    const std::size_t capacity = class_bytes(size_class);
    while (header != nullptr) {
      Header* const next = header->next;
      Arena* const arena = arena_of(header);
      if (arena != nullptr && arena->blocks_in_use > 0) {
        header->next = std::exchange(free_[size_class], header);
      } else {
        stats_.cached_bytes -= static_cast<std::int64_t>(capacity);
        if (arena == nullptr) return_memory(header, whole_pages(Header::kBytes + capacity));
      }
      header = next;
    }
  }
  std::erase_if(arenas_, [this](Arena* arena) {
    if (arena->blocks_in_use > 0) return false;
    return_memory(arena, kArenaBytes);
    return true;
  });
}

void BlockCache::out_of_memory(std::size_t bytes, const BlockCacheStats& stats) {
  throw_error<Error>(
      "out of memory: the system has no {} bytes for a tensor; {} bytes are in use by tensors, and "
      "{} that were kept for reuse did not help; lower batch.micro_batch_size, or spread "
      "the model over more machines",
      bytes, stats.in_use_bytes, stats.cached_bytes);
}

}  // namespace trireme

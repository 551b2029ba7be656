// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/memory/block_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#include "trireme/base/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;
using enum MemoryCategory;

constexpr std::size_t kMiB = std::size_t{1} << 20;

// The system's pages up to a limit; knows what is out.
class LimitedPages final : public PageSource {
 public:
  explicit LimitedPages(std::size_t limit_bytes) : limit_bytes_(limit_bytes) {}
  void* map(std::size_t bytes, std::size_t alignment) override {
    if (mapped_bytes() + bytes > limit_bytes_) return nullptr;
    void* const memory = system_pages().map(bytes, alignment);
    out_[memory] = bytes;
    return memory;
  }
  void unmap(void* memory, std::size_t bytes) noexcept override {
    EXPECT_EQ(out_.at(memory), bytes);
    out_.erase(memory);
    system_pages().unmap(memory, bytes);
  }
  std::size_t mapped_bytes() const {
    std::size_t sum = 0;
    for (const auto& [memory, bytes] : out_) sum += bytes;
    return sum;
  }

 private:
  std::size_t limit_bytes_;
  std::map<void*, std::size_t> out_;
};

struct BlockCacheTest : ::testing::Test {
  LimitedPages pages{200 * kMiB};
  MemoryLedger ledger;
  BlockCache cache{pages, ledger};
};

TEST_F(BlockCacheTest, SizeClassesWasteAnEighthAtMost) {
  EXPECT_EQ(BlockCache::block_bytes(1), 64U);
  EXPECT_EQ(BlockCache::block_bytes(64), 64U);
  EXPECT_EQ(BlockCache::block_bytes(65), 128U);
  EXPECT_EQ(BlockCache::block_bytes(4096), 4096U);
  EXPECT_EQ(BlockCache::block_bytes(4097), 4096U + 512U);
  EXPECT_EQ(BlockCache::block_bytes(8192), 8192U);
  EXPECT_EQ(BlockCache::block_bytes(8193), 8192U + 1024U);
  EXPECT_EQ(BlockCache::block_bytes(3 * kMiB), 3 * kMiB);
  for (std::size_t bytes = 4096; bytes < 1024 * kMiB; bytes += bytes / 37 + 1) {
    const std::size_t block = BlockCache::block_bytes(bytes);
    ASSERT_GE(block, bytes);
    ASSERT_LE(block - bytes, bytes / 8) << bytes;
    ASSERT_EQ(BlockCache::block_bytes(block), block) << "a class holds its own size";
    ASSERT_EQ(BlockCache::block_bytes(block + 1) > block, true);
  }
}

TEST_F(BlockCacheTest, BlocksAreAlignedApartAndWritable) {
  std::vector<std::pair<unsigned char*, std::size_t>> blocks;
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{64}, std::size_t{777},
                                  std::size_t{5000}, kMiB, 4 * kMiB, 4 * kMiB + 1, 9 * kMiB}) {
    for (int copy = 0; copy < 3; ++copy) {
      auto* const block = static_cast<unsigned char*>(cache.take(bytes, kActivations));
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(block) % BlockCache::kAlignment, 0U);
      std::memset(block, static_cast<int>(blocks.size() + 1), bytes);
      blocks.emplace_back(block, bytes);
    }
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto& [block, bytes] = blocks[i];
    for (const std::size_t at : {std::size_t{0}, bytes / 2, bytes - 1}) {
      ASSERT_EQ(block[at], i + 1) << "block " << i << " was written by another";
    }
  }
  for (const auto& [block, bytes] : blocks) cache.give_back(block);
  EXPECT_EQ(cache.stats().in_use_bytes, 0);
}

TEST_F(BlockCacheTest, TheSameSizesFetchNothingTheSecondTime) {
  const std::vector<std::size_t> step = {100, 3000, 70000, 5 * kMiB, 2 * kMiB, 100, 6 * kMiB};
  const auto run = [&] {
    std::vector<void*> blocks;
    for (const std::size_t bytes : step) blocks.push_back(cache.take(bytes, kActivations));
    for (void* block : blocks) cache.give_back(block);
  };
  run();
  const std::int64_t fetched = cache.stats().fetched_bytes;
  EXPECT_GT(fetched, 13 * static_cast<std::int64_t>(kMiB));
  for (int i = 0; i < 5; ++i) run();
  EXPECT_EQ(cache.stats().fetched_bytes, fetched);
}

TEST_F(BlockCacheTest, TheLastFreedComesFirst) {
  void* const first = cache.take(10000, kActivations);
  void* const second = cache.take(10001, kActivations);
  cache.give_back(first);
  cache.give_back(second);
  EXPECT_EQ(cache.take(9999, kActivations), second);
  EXPECT_EQ(cache.take(10000, kActivations), first);
  cache.give_back(first);
  cache.give_back(second);
}

TEST_F(BlockCacheTest, ReleaseGivesBackAllThatIsFree) {
  void* const kept = cache.take(300, kWeights);
  void* const small = cache.take(500, kActivations);
  void* const large = cache.take(20 * kMiB, kActivations);
  cache.give_back(small);
  cache.give_back(large);
  EXPECT_GT(pages.mapped_bytes(), 50 * kMiB);
  EXPECT_GT(cache.stats().cached_bytes, 0);
  cache.release_cached();
  EXPECT_EQ(pages.mapped_bytes(), 32 * kMiB) << "the arena of the block in use";
  EXPECT_EQ(cache.take(500, kActivations), small) << "free blocks beside one in use stay";
  cache.give_back(small);
  cache.give_back(kept);
  cache.release_cached();
  EXPECT_EQ(pages.mapped_bytes(), 0U);
  EXPECT_EQ(cache.stats().mapped_bytes, 0);
  EXPECT_EQ(cache.stats().cached_bytes, 0);
  cache.give_back(cache.take(500, kActivations));
}

TEST_F(BlockCacheTest, WhatIsCachedIsGivenBackBeforeMemoryIsCalledOut) {
  void* const first = cache.take(120 * kMiB, kActivations);
  cache.give_back(first);
  void* const other = cache.take(150 * kMiB, kActivations);  // 120 + 150 would not fit
  void* const cached = cache.take(33 * kMiB, kActivations);
  cache.give_back(cached);
  EXPECT_THAT([&] { cache.take(60 * kMiB, kActivations); },
              ThrowsMessage<Error>(
                  AllOf(HasSubstr("no 62914560 bytes"), HasSubstr("157286400 bytes are in"),
                        HasSubstr("37748736 that were kept"), Not(HasSubstr("\n")))));
  EXPECT_EQ(cache.stats().in_use_bytes, static_cast<std::int64_t>(150 * kMiB)) << "unchanged";
  EXPECT_THROW(cache.take(SIZE_MAX, kActivations), Error);
  cache.give_back(other);
  cache.give_back(cache.take(60 * kMiB, kActivations));
}

TEST_F(BlockCacheTest, ABlockLeavesTheCategoryThatItCameUnder) {
  void* const weights = cache.take(1000, kWeights);
  void* const gradients = cache.take(6 * kMiB, kGradients);
  EXPECT_EQ(ledger.report().current[kWeights], 1000);
  std::thread([&] {
    const MemoryScope scope(kWorkspace);
    cache.give_back(weights);
  }).join();
  EXPECT_EQ(ledger.report().current[kWeights], 0);
  EXPECT_EQ(ledger.report().current[kGradients], static_cast<std::int64_t>(6 * kMiB));
  cache.give_back(gradients);
  EXPECT_EQ(ledger.report().current.total(), 0);
}

TEST_F(BlockCacheTest, AFreeBlockIsNotFreedAgain) {
  void* const block = cache.take(100, kActivations);
  cache.give_back(block);
  EXPECT_THAT([&] { cache.give_back(block); },
              ThrowsMessage<InternalError>(HasSubstr("freed twice")));
}

#if defined(__SANITIZE_ADDRESS__)
TEST_F(BlockCacheTest, AddressSanitizerSeesWhatIsNotTheCallers) {
  for (const std::size_t bytes : {std::size_t{100}, 5 * kMiB}) {
    auto* const block = static_cast<char*>(cache.take(bytes, kActivations));
    EXPECT_FALSE(__asan_address_is_poisoned(block));
    EXPECT_FALSE(__asan_address_is_poisoned(block + bytes - 1));
    EXPECT_TRUE(__asan_address_is_poisoned(block - 1));
    EXPECT_TRUE(__asan_address_is_poisoned(block + bytes + 7)) << "the rest of the class";
    cache.give_back(block);
    EXPECT_TRUE(__asan_address_is_poisoned(block)) << "free";
    EXPECT_EQ(cache.take(bytes, kActivations), block);
    EXPECT_FALSE(__asan_address_is_poisoned(block));
    cache.give_back(block);
    cache.release_cached();
    EXPECT_FALSE(__asan_address_is_poisoned(block)) << "the system's, for others";
  }
}
#endif

// Each thread marks its blocks and frees those of its neighbour.
TEST_F(BlockCacheTest, ThreadsShareIt) {
  constexpr std::size_t kThreads = 4, kBlocks = 300;
  std::vector<std::vector<std::size_t*>> taken(kThreads, std::vector<std::size_t*>(kBlocks));
  const auto for_all = [](auto body) {
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) threads.emplace_back(body, t);
    for (std::thread& thread : threads) thread.join();
  };
  for (int round = 0; round < 3; ++round) {
    for_all([&](std::size_t t) {
      for (std::size_t i = 0; i < kBlocks; ++i) {
        taken[t][i] = static_cast<std::size_t*>(cache.take(8 + (i * 131 + t) % 9000, kActivations));
        *taken[t][i] = t * kBlocks + i;
      }
    });
    for_all([&](std::size_t t) {
      const std::size_t neighbour = (t + 1) % kThreads;
      for (std::size_t i = 0; i < kBlocks; ++i) {
        EXPECT_EQ(*taken[neighbour][i], neighbour * kBlocks + i);
        cache.give_back(taken[neighbour][i]);
      }
    });
  }
  EXPECT_EQ(cache.stats().in_use_bytes, 0);
  EXPECT_EQ(ledger.report().current.total(), 0);
}

}  // namespace
}  // namespace trireme

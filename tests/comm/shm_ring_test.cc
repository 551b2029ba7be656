// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "tests/support/reference_tree.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;

std::uint64_t scramble(std::uint64_t x) { return x * 0x9e3779b97f4a7c15u >> 33; }

// Writer and reader in turn: filled to the brim, emptied by a few, again and again, so that records
// of every size meet the end of the ring with every amount of room. Nothing that was not read is
// overwritten, and nothing is written past the end.
TEST(ShmRing, KeepsEveryRecordAndItsBounds) {
  constexpr std::size_t kGuard = 2 * ShmRing::kMostChunkBytes;
  constexpr std::uint32_t kSizes[] = {0, 1, 23, 24, 25, 64, 65, 1023, 4099, 20011, 32767, 32768};
  const auto words = std::make_unique<ShmRing::Words>();
  struct Line {
    alignas(64) std::byte bytes[64];
  };
  std::vector<Line> memory((ShmRing::kBytes + kGuard) / sizeof(Line));
  auto* lines = reinterpret_cast<std::byte*>(memory.data());
  std::fill(lines + ShmRing::kBytes, lines + ShmRing::kBytes + kGuard, std::byte{0xee});
  ShmRing ring(words.get(), lines);

  std::deque<std::uint32_t> sizes;
  std::uint64_t written = 0;
  std::uint64_t read = 0;
  const auto data = [](std::uint64_t i, std::uint32_t bytes) {
    return distinct_data(static_cast<int>(i), bytes, DType::kU8);
  };
  const auto write = [&] {
    const std::uint32_t bytes = kSizes[scramble(written) % std::size(kSizes)];
    const ShmChunk chunk{.sequence = written, .offset = 3 * written, .tag = 7, .bytes = bytes};
    if (!ring.write(chunk, data(written, bytes).data())) return false;
    sizes.push_back(bytes);
    ++written;
    return true;
  };
  while (written < 4000) {
    while (write()) {
    }
    const std::uint64_t taken = std::min<std::uint64_t>(scramble(read) % 23, sizes.size() - 1);
    for (std::uint64_t i = 0; i <= taken; ++i, ++read, sizes.pop_front()) {
      ShmChunk chunk;
      const std::byte* bytes = nullptr;
      ASSERT_TRUE(ring.front(chunk, bytes));
      ASSERT_EQ(chunk.sequence, read);
      ASSERT_EQ(chunk.offset, 3 * read);
      ASSERT_EQ(chunk.bytes, sizes.front());
      const Bytes expected = data(read, chunk.bytes);
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(), bytes)) << "record " << read;
      ring.pop();
    }
  }
  EXPECT_TRUE(std::all_of(lines + ShmRing::kBytes, lines + ShmRing::kBytes + kGuard,
                          [](std::byte byte) { return byte == std::byte{0xee}; }));
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Memory that a server maps without believing who made it.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/rpc.h"
#include "trireme/comm/rpc/arena.h"
#include "trireme/comm/rpc/arena_regions.h"
#include "trireme/comm/rpc/memory.h"

namespace trireme {
namespace {

using testing::bytes_of;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::rpc_bytes;
using ::testing::StartsWith;

std::size_t descriptors() {
  const std::filesystem::directory_iterator folder("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(folder), end(folder)));
}

TEST(RpcArenaMemory, IsZerosAtAPage) {
  RpcArena arena;
  const SharedBuffer one = arena.allocate(4097);
  const SharedBuffer two = arena.allocate(1);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(one.data()) % 4096, 0U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(two.data()) % 4096, 0U);
  EXPECT_EQ(one.bytes(), 4097U);
  EXPECT_TRUE(std::ranges::all_of(bytes_of(one), [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_EQ(arena.allocate(0).data(), nullptr);
}

TEST(RpcArenaMemory, ThatCannotBeHadIsAnError) {
  RpcArena arena;
  // More than any machine has: nothing is taken away from others to find out.
  EXPECT_THAT(failure_of([&] { arena.allocate(std::size_t{1} << 45); }),
              StartsWith("CommError: cannot reserve 34359738368 KiB of memory to share"));
}

TEST(RpcArenaMemory, IsFoundByItsBytes) {
  RpcArena arena;
  const SharedBuffer one = arena.allocate(5000);
  const SharedBuffer two = arena.allocate(7000);
  const auto& regions = *arena.regions();
  const auto place = [&](const SharedBuffer& buffer, std::size_t offset, std::size_t bytes) {
    return regions.locate(static_cast<std::byte*>(buffer.data()) + offset, bytes);
  };
  const RpcPlace first = place(one, 0, 5000);
  const RpcPlace second = place(two, 13, 6987);
  EXPECT_NE(first.memory, 0U);
  EXPECT_NE(second.memory, 0U);
  EXPECT_NE(first.memory, second.memory);
  EXPECT_EQ(first.offset, 0U);
  EXPECT_EQ(second.offset, 13U);
  EXPECT_FALSE(place(one, 0, 0));
  EXPECT_FALSE(place(one, 1, 5000));
  EXPECT_FALSE(place(one, 4999, SIZE_MAX));
  const int elsewhere = 0;
  EXPECT_FALSE(regions.locate(&elsewhere, sizeof(elsewhere)));
}

TEST(RpcArenaMemory, GoesWithItsBuffer) {
  const std::size_t before = descriptors();
  {
    SharedBuffer buffer;
    std::uint64_t memory = 0;
    std::shared_ptr<detail::ArenaRegions> regions;
    {
      RpcArena arena;
      buffer = arena.allocate(9001);
      regions = arena.regions();
      memory = regions->locate(buffer.data(), 1).memory;
    }
    const ArenaMemory there = ArenaMemory::open(*regions->notice(memory));
    EXPECT_FALSE(there.freed());
    bytes_of(buffer)[9000] = std::byte{5};
    EXPECT_EQ(there.data()[9000], std::byte{5});
    buffer = {};
    EXPECT_TRUE(there.freed());
    EXPECT_FALSE(regions->notice(memory).has_value());
    // What is written after that harms nobody.
    there.data()[9000] = std::byte{6};
  }
  EXPECT_EQ(descriptors(), before);
}

TEST(RpcArenaMemory, StaysAsItIsForReadersThatItIsLeftTo) {
  RpcArena arena;
  SharedBuffer buffer = arena.allocate(9001);
  const ArenaMemory there =
      ArenaMemory::open(*arena.regions()->notice(arena.regions()->locate(buffer.data(), 1).memory));
  bytes_of(buffer)[9000] = std::byte{5};
  arena.leave_to_readers();
  buffer = {};
  EXPECT_EQ(there.data()[9000], std::byte{5});
}

TEST(RpcArenaMemory, IsOpenedOnlyAsWhatItIs) {
  const ArenaMemory memory = ArenaMemory::make(3, 70001);
  const auto refusal = [](const MemoryNotice& notice) {
    return failure_of([&] { ArenaMemory::open(notice); });
  };
  EXPECT_EQ(refusal(memory.notice()), "no error");

  MemoryNotice notice = memory.notice();
  notice.token[31] = static_cast<char>(notice.token[31] ^ 1);
  EXPECT_THAT(refusal(notice), HasSubstr("is another memory than was told of"));
  for (const std::uint64_t bytes : {70000UL, 70002UL, 0UL, 1UL << 46}) {
    notice = memory.notice();
    notice.bytes = bytes;
    EXPECT_THAT(refusal(notice), HasSubstr(std::to_string(bytes) + " bytes of shared memory"));
  }
  notice = memory.notice();
  notice.descriptor = 1 << 30;
  EXPECT_THAT(refusal(notice), HasSubstr("cannot be opened"));
  notice.process = UINT64_MAX;
  EXPECT_THAT(refusal(notice), HasSubstr("cannot be opened"));
}

// Files that could become shorter under a server that writes to them, or are no memory at all; with
// the right size and the right token.
TEST(RpcArenaMemory, IsNothingThatIsNotSealed) {
  const ArenaMemory memory = ArenaMemory::make(3, 4096);
  const auto refusal = [&](int fd) {
    const FileDescriptor owned(fd);
    EXPECT_GE(fd, 0);
    if (ftruncate(fd, 8192) == 0) {
      EXPECT_EQ(pwrite(fd, memory.notice().token.data(), kMemoryTokenBytes, 0), 32);
    }
    MemoryNotice notice = memory.notice();
    notice.descriptor = static_cast<std::uint32_t>(fd);
    return failure_of([&] { ArenaMemory::open(notice); });
  };
  const std::string what = "is not 4096 bytes of shared memory";
  EXPECT_THAT(refusal(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING)), HasSubstr(what));
  EXPECT_THAT(refusal(memfd_create("no seals", MFD_CLOEXEC)), HasSubstr(what));
  EXPECT_THAT(refusal(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)), HasSubstr(what));
  EXPECT_THAT(refusal(::open("/dev/zero", O_RDWR | O_CLOEXEC)), HasSubstr(what));
  // Nobody writes to the pipe: it is not waited for.
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const FileDescriptor writes(ends[1]);
  EXPECT_THAT(refusal(ends[0]), HasSubstr(what));
}

}  // namespace
}  // namespace trireme

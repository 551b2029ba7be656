// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_regions.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "trireme/base/file_descriptor.h"

namespace trireme {
namespace {

GroupScope scope_of(int rank) {
  GroupScope scope;
  scope.world = std::make_shared<WorldState>();
  scope.world->rank = rank;
  scope.world->members.resize(2);
  scope.rank = rank;
  scope.world_ranks = {0, 1};
  return scope;
}

// Rank 0 leaves an operation that has failed, and frees its memory, after rank 1 has opened it and
// before rank 1 is done with it.
TEST(ShmRegions, WhatIsFreedWhileAPeerMapsItStaysMappedForThePeer) {
  constexpr std::size_t kBytes = 3 * 4096;
  const GroupScope owner = scope_of(0), peer = scope_of(1);
  const auto own = std::make_shared<ShmRegions>(), theirs = std::make_shared<ShmRegions>();
  std::shared_ptr<void> memory = own->allocate(owner, kBytes);
  ShmLocation location = own->locate(memory.get(), kBytes);
  const FileDescriptor opened(dup(location.descriptor));
  memory.reset();
  location.descriptor = opened.get();

  std::shared_ptr<std::byte> reached = theirs->reach(peer, 0, location);
  std::memset(reached.get(), 7, kBytes);
  EXPECT_EQ(reached.get()[kBytes - 1], std::byte{7});
  EXPECT_GE(reached.use_count(), 2) << "kept for the next operation";
}

}  // namespace
}  // namespace trireme

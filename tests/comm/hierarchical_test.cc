// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What crosses between imitated hosts. What the operations compute there: operations_test.cc.

#include <gtest/gtest.h>

#include <atomic>

#include "tests/support/placements.h"
#include "tests/support/reference_tree.h"

namespace trireme {
namespace {

using testing::Bytes;
using testing::distinct_data;
using testing::run_placed;

Buffer as_buffer(Bytes& bytes, DType dtype) {
  return {bytes.data(), static_cast<std::int64_t>(bytes.size() / dtype_bytes(dtype)), dtype};
}

// Two hosts of two ranks: each byte of the data leaves each host once and enters it once.
TEST(HierarchicalTraffic, EveryByteCrossesOnceEachWay) {
  constexpr std::int64_t kCount = 3 << 20;
  std::atomic<std::int64_t> left[2] = {0, 0};
  run_placed({"shm+gloo", {0, 0, 1, 1}}, [&](Group& group) {
    Bytes data = distinct_data(group.rank(), kCount, DType::kF32);
    group.all_reduce(as_buffer(data, DType::kF32));
    left[group.rank() / 2] += group.bytes_sent_between_hosts();
  });
  EXPECT_EQ(left[0].load(), kCount * 4);
  EXPECT_EQ(left[1].load(), kCount * 4);
}

TEST(HierarchicalTraffic, ABroadcastEntersEachHostOnce) {
  constexpr std::int64_t kCount = 1000003;
  std::atomic<std::int64_t> left = 0;
  run_placed({"shm+gloo", {0, 0, 1, 1, 1}}, [&](Group& group) {
    Bytes data = distinct_data(group.rank(), kCount, DType::kF32);
    group.broadcast(as_buffer(data, DType::kF32), 1);
    left += group.bytes_sent_between_hosts();
  });
  EXPECT_EQ(left.load(), kCount * 4);
}

}  // namespace
}  // namespace trireme

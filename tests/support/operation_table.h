// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The table of operations that every engine is held to: every dtype and reduction, and the sizes at
// which something changes.
//
//   EXPECT_EQ(run_table(group, table_of(Kind::kAllReduce, group.size())), "");
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/run_operation.h"

namespace trireme::testing {

constexpr std::uint32_t kHeap = 0;
constexpr std::uint32_t kShared = 0xff;
constexpr std::uint32_t kMixed = 0x55;

// Sizes at which something changes: bytes of the data, or of a block.
struct Row {
  std::int64_t bytes;
  DType dtype;
  ReduceOp op;
  std::uint32_t shared;
};
constexpr Row kThresholds[] = {
    // Gloo: what travels with the header. Hosts: one rail or many.
    {4096, DType::kF32, ReduceOp::kSum, kHeap},
    {4098, DType::kBF16, ReduceOp::kMean, kHeap},
    // Shm: what is reduced by everybody; from there on shared memory is used where it is.
    {8192, DType::kF32, ReduceOp::kMean, kShared},
    {8194, DType::kF16, ReduceOp::kSum, kShared},
    {8200, DType::kF64, ReduceOp::kProduct, kMixed},
    // Several places of a half, on more or fewer ranks; all of a broadcast to everybody.
    {100003, DType::kU8, ReduceOp::kSum, kShared},
    {262144, DType::kF32, ReduceOp::kSum, kHeap},
    {262148, DType::kF32, ReduceOp::kMin, kShared},
    {300004, DType::kI32, ReduceOp::kMax, kMixed},
    // Several segments, steps of the network's reductions, pieces of a hierarchy.
    {1200008, DType::kF64, ReduceOp::kSum, kHeap},
    {1200008, DType::kI64, ReduceOp::kSum, kShared},
};
constexpr Row kLarge[] = {
    {4194312, DType::kF64, ReduceOp::kSum, kHeap},
    {4194312, DType::kF64, ReduceOp::kMean, kShared},
};
constexpr Row kHuge[] = {{24000008, DType::kF64, ReduceOp::kSum, kHeap},
                         {24000008, DType::kF64, ReduceOp::kSum, kShared}};

inline bool reduces(Kind kind) {
  return kind == Kind::kAllReduce || kind == Kind::kAllReduceMany || kind == Kind::kReduce ||
         kind == Kind::kReduceScatter;
}
inline bool is_coalesced(Kind kind) {
  return kind == Kind::kAllReduceMany || kind == Kind::kBroadcastMany;
}
inline bool has_blocks(Kind kind) {
  return kind == Kind::kReduceScatter || kind == Kind::kAllGather || kind == Kind::kGather ||
         kind == Kind::kScatter;
}

// Uneven blocks of up to `most` elements, every third of them empty.
inline std::int64_t uneven(int i, int n, std::int64_t most) {
  return i % 3 == 1 ? 0 : most * (i % n + 1) / n;
}

// The operation for data, or blocks, of `count` elements. Everything that it leaves open changes
// with its number.
inline Operation operation_of(Kind kind, int n, const Row& row, std::int64_t count, int number) {
  Operation operation;
  operation.kind = kind;
  operation.dtype = row.dtype;
  operation.op = row.op;
  operation.root = number % n;
  operation.shared = row.shared;
  operation.number = number;
  operation.work = number % 2 == 1;
  operation.even = number % 3 == 0;
  operation.in_place = (kind == Kind::kAllGather || kind == Kind::kReduceScatter) && number % 4 < 2;
  if (has_blocks(kind) || kind == Kind::kShift) {
    for (int rank = 0; rank < n; ++rank) {
      const bool same = operation.even || n == 1 || count < 2;
      operation.counts.push_back(same ? count : uneven(rank, n, count));
    }
    operation.even = operation.even || count < 2;
  } else if (kind == Kind::kAllToAll) {
    for (int pair = 0; pair < n * n; ++pair) {
      operation.counts.push_back(operation.even ? count : uneven(pair % n + pair / n, n, count));
    }
  } else if (is_coalesced(kind)) {
    operation.counts = {count / 3, 0, count - count / 3 - count / 5, count / 5};
  } else if (kind != Kind::kBarrier) {
    operation.counts = {count};
  }
  return operation;
}

// Every dtype and reduction at small counts, then the sizes at which something changes.
inline std::vector<Case> table_of(Kind kind, int n) {
  std::vector<Case> table;
  const auto add = [&](const Row& row, std::int64_t count) {
    const int number = static_cast<int>(table.size());
    table.push_back(model(operation_of(kind, n, row, count, number), n));
  };
  for (const DType dtype : kDTypes) {
    for (const ReduceOp op : kReduceOps) {
      if (!is_defined(op, dtype)) continue;
      if (op != ReduceOp::kSum && (!reduces(kind) || is_coalesced(kind))) continue;
      add({0, dtype, op, kHeap}, 517);
      if (op != ReduceOp::kSum) continue;
      add({0, dtype, op, kHeap}, 1);
      add({0, dtype, op, kHeap}, static_cast<std::int64_t>(dtype) % 2 * 3);
    }
  }
  const auto add_all = [&](const auto& rows) {
    for (const Row& row : rows) {
      // The sum over blocks grows with n, and with n n.
      const std::int64_t shrink = kind == Kind::kAllToAll ? std::max(1, n / 2) : 1;
      add(row, row.bytes / static_cast<std::int64_t>(dtype_bytes(row.dtype)) / shrink);
    }
  };
  add_all(kThresholds);
  const bool grows = has_blocks(kind) || kind == Kind::kAllToAll;
  if (!grows && (n == 2 || n % 2 == 1)) add_all(kLarge);
  if (n == 2 && (grows || kind == Kind::kAllReduce)) add_all(kHuge);
  return table;
}

// In order, Works left under way until there are a few of them, the last waited for first.
inline std::string run_table(Group& group, const std::vector<Case>& table,
                             int cuda_device = kHostMemory) {
  constexpr std::size_t kUnderWay = 4;
  std::vector<std::unique_ptr<RunningOperation>> running;
  std::string wrong;
  for (const Case& scene : table) {
    running.push_back(std::make_unique<RunningOperation>(group, scene, cuda_device));
    if (running.size() < kUnderWay && &scene != &table.back()) continue;
    for (; !running.empty(); running.pop_back()) wrong += running.back()->finish();
    if (!wrong.empty()) return wrong;
  }
  return wrong;
}

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Every operation of Group against the model of plain vectors, bit for bit: a table of sizes and
// forms, one test per operation, on every engine and number of ranks.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/placements.h"
#include "tests/support/run_operation.h"

namespace trireme {
namespace {

using testing::Case;
using testing::is_defined;
using testing::Kind;
using testing::model;
using testing::one_host;
using testing::Operation;
using testing::Placement;
using testing::RunningOperation;

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

bool reduces(Kind kind) {
  return kind == Kind::kAllReduce || kind == Kind::kAllReduceMany || kind == Kind::kReduce ||
         kind == Kind::kReduceScatter;
}
bool is_coalesced(Kind kind) {
  return kind == Kind::kAllReduceMany || kind == Kind::kBroadcastMany;
}
bool has_blocks(Kind kind) {
  return kind == Kind::kReduceScatter || kind == Kind::kAllGather || kind == Kind::kGather ||
         kind == Kind::kScatter;
}

// Uneven blocks of up to `most` elements, every third of them empty.
std::int64_t uneven(int i, int n, std::int64_t most) {
  return i % 3 == 1 ? 0 : most * (i % n + 1) / n;
}

// The operation for data, or blocks, of `count` elements. Everything that it leaves open changes
// with its number.
Operation operation_of(Kind kind, int n, const Row& row, std::int64_t count, int number) {
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
std::vector<Case> table_of(Kind kind, int n) {
  std::vector<Case> table;
  const auto add = [&](const Row& row, std::int64_t count) {
    const int number = static_cast<int>(table.size());
    table.push_back(model(operation_of(kind, n, row, count, number), n));
  };
  for (const DType dtype : testing::kDTypes) {
    for (const ReduceOp op : testing::kReduceOps) {
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
std::string run_table(Group& group, const std::vector<Case>& table) {
  constexpr std::size_t kUnderWay = 4;
  std::vector<std::unique_ptr<RunningOperation>> running;
  std::string wrong;
  for (const Case& scene : table) {
    running.push_back(std::make_unique<RunningOperation>(group, scene));
    if (running.size() < kUnderWay && &scene != &table.back()) continue;
    for (; !running.empty(); running.pop_back()) wrong += running.back()->finish();
    if (!wrong.empty()) return wrong;
  }
  return wrong;
}

class OperationsTest : public ::testing::TestWithParam<Placement> {
 protected:
  static void check(Kind kind) {
    const std::vector<Case> table = table_of(kind, GetParam().size());
    testing::run_placed(GetParam(), [&](Group& group) { EXPECT_EQ(run_table(group, table), ""); });
  }
};

TEST_P(OperationsTest, AllReduce) { check(Kind::kAllReduce); }
TEST_P(OperationsTest, AllReduceOfMany) { check(Kind::kAllReduceMany); }
TEST_P(OperationsTest, ReduceScatter) { check(Kind::kReduceScatter); }
TEST_P(OperationsTest, AllGather) { check(Kind::kAllGather); }
TEST_P(OperationsTest, Broadcast) { check(Kind::kBroadcast); }
TEST_P(OperationsTest, BroadcastOfMany) { check(Kind::kBroadcastMany); }
TEST_P(OperationsTest, Reduce) { check(Kind::kReduce); }
TEST_P(OperationsTest, Gather) { check(Kind::kGather); }
TEST_P(OperationsTest, Scatter) { check(Kind::kScatter); }
TEST_P(OperationsTest, AllToAll) { check(Kind::kAllToAll); }
TEST_P(OperationsTest, SendRecv) { check(Kind::kShift); }

std::vector<Placement> placements() {
  std::vector<Placement> all;
  for (int n = 1; n <= 8; ++n) all.push_back(one_host("shm", n));
  for (int n = 2; n <= 8; ++n) all.push_back(one_host("gloo", n));
  for (const std::vector<int>& hosts : std::vector<std::vector<int>>{{0, 0, 1},
                                                                     {0, 0, 1, 1},
                                                                     {0, 0, 0, 0, 1},
                                                                     {0, 1, 0, 1, 0},
                                                                     {0, 0, 0, 1, 1, 1},
                                                                     {0, 1, 1, 2, 2, 2, 2},
                                                                     {1, 0, 0, 0, 2, 1, 2, 0}}) {
    all.push_back({"shm+gloo", hosts});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Placements, OperationsTest, ::testing::ValuesIn(placements()),
                         [](const auto& test) { return testing::placement_name(test.param); });

// The same where ranks share nothing but the machine.
class OperationsOfProcesses : public ::testing::TestWithParam<Placement> {};

TEST_P(OperationsOfProcesses, GiveWhatTheModelGives) {
  std::vector<Case> table;
  const int n = GetParam().size();
  for (int kind = 0; kind < testing::kNumKinds; ++kind) {
    if (static_cast<Kind>(kind) == Kind::kMessages) continue;
    for (const Row& row : {kThresholds[1], kThresholds[5], kThresholds[8], kThresholds[10]}) {
      const auto count = row.bytes / static_cast<std::int64_t>(dtype_bytes(row.dtype));
      const int number = static_cast<int>(table.size());
      table.push_back(model(operation_of(static_cast<Kind>(kind), n, row, count, number), n));
    }
  }
  auto ranks = testing::start_processes(
      n,
      [&](const WorldOptions& options) {
        const std::unique_ptr<Group> group = join_world(options);
        const std::string wrong = run_table(*group, table);
        group->close();
        return wrong.empty() ? std::string("as the model") : wrong;
      },
      GetParam().engine, [&](WorldOptions& options) { GetParam().adapt(options); });
  for (auto& rank : ranks) EXPECT_EQ(rank.result(), "as the model");
}

INSTANTIATE_TEST_SUITE_P(Placements, OperationsOfProcesses,
                         ::testing::Values(one_host("shm", 3), one_host("shm", 6),
                                           one_host("gloo", 3), one_host("gloo", 5),
                                           Placement{"shm+gloo", {0, 0, 1, 1, 1}},
                                           Placement{"shm+gloo", {0, 1, 0, 2, 2, 1}}),
                         [](const auto& test) { return testing::placement_name(test.param); });

}  // namespace
}  // namespace trireme

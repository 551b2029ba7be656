// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Every operation of Group against the model of plain vectors, bit for bit: a table of sizes and
// forms, one test per operation, on every engine and number of ranks.

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/operation_table.h"
#include "tests/support/placements.h"

namespace trireme {
namespace {

using testing::Case;
using testing::Kind;
using testing::kThresholds;
using testing::model;
using testing::one_host;
using testing::operation_of;
using testing::Placement;
using testing::run_table;
using testing::table_of;

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
    for (const testing::Row& row :
         {kThresholds[1], kThresholds[5], kThresholds[8], kThresholds[10]}) {
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

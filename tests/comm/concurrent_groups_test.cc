// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Several groups of one world at work at the same time, each from a thread of its own, each with
// its own order of operations.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/placements.h"
#include "tests/support/run_operation.h"
#include "trireme/topology/mesh.h"

namespace trireme {
namespace {

using testing::Case;
using testing::Kind;
using testing::one_host;
using testing::Operation;
using testing::Placement;
using testing::RunningOperation;

constexpr int kRounds = 15;

// What the group does: operations, sizes and data that no other group has, so that an order that is
// not kept shows as signatures that differ or as wrong bytes.
std::vector<Case> operations_of(int group, int n) {
  std::vector<Case> all;
  const Kind kinds[] = {Kind::kAllReduce, Kind::kAllGather, Kind::kShift,   Kind::kReduceScatter,
                        Kind::kBroadcast, Kind::kAllToAll,  Kind::kMessages};
  for (int i = 0; i < kRounds; ++i) {
    Operation operation;
    operation.kind = kinds[(i + group) % std::size(kinds)];
    operation.root = i % n;
    operation.work = i % 3 == 0;
    operation.number = 100 * group + i;
    operation.shared = i % 2 == 0 ? 0xff : 0;
    const std::int64_t count = i % 5 == 4 ? 30011 : 200 + 10 * group + i;
    const bool one = operation.kind == Kind::kAllReduce || operation.kind == Kind::kBroadcast;
    const int pieces = operation.kind == Kind::kAllToAll ? n * n : one ? 1 : n;
    operation.counts.assign(static_cast<std::size_t>(pieces), count);
    if (operation.kind == Kind::kMessages) {
      operation.counts.clear();
      for (int rank = 0; rank < n; ++rank) {
        operation.messages.push_back({rank, (rank + 1 + i) % n, i % 2, count});
      }
    }
    all.push_back(testing::model(operation, n));
  }
  return all;
}

// In order; two are under way at a time where they are Works.
std::string run_all(Group& group, const std::vector<Case>& cases) {
  std::string wrong;
  std::unique_ptr<RunningOperation> last;
  for (const Case& scene : cases) {
    auto next = std::make_unique<RunningOperation>(group, scene);
    if (last) wrong += last->finish();
    last = std::move(next);
  }
  return wrong + last->finish();
}

class ConcurrentGroups : public ::testing::TestWithParam<Placement> {};

TEST_P(ConcurrentGroups, KeepEachItsOrder) {
  const int n = GetParam().size();
  const Mesh mesh = n % 2 == 0 ? Mesh({{"pp", n / 2}, {"tp", 2}}) : Mesh({{"pp", n}, {"tp", 1}});
  // The groups of a rank by number; groups that no rank shares have numbers of their own, too.
  constexpr int kGroups = 5;
  const auto number_of = [](int which, int first_rank) { return 20 * which + first_rank; };
  testing::run_placed(GetParam(), [&](Group& world) {
    std::vector<std::unique_ptr<Group>> parts;
    parts.push_back(world.split(mesh, "pp"));
    parts.push_back(world.split(mesh, "tp"));
    parts.push_back(world.split_by_color("parity", world.rank() % 2));
    parts.push_back(world.split_by_color("halves", world.rank() < n / 2 ? 0 : 1));
    std::vector<std::thread> threads;
    std::vector<std::string> wrong(kGroups);
    for (int which = 0; which < kGroups; ++which) {
      const auto i = static_cast<std::size_t>(which);
      Group* group = i < parts.size() ? parts[i].get() : &world;
      threads.emplace_back([group, which, number_of, &said = wrong[i]] {
        try {
          const int number = number_of(which, group->world_ranks().front());
          said = run_all(*group, operations_of(number, group->size()));
        } catch (const CommError& error) {
          said = error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& said : wrong) EXPECT_EQ(said, "");
  });
}

INSTANTIATE_TEST_SUITE_P(Placements, ConcurrentGroups,
                         ::testing::Values(one_host("shm", 4), one_host("shm", 7),
                                           one_host("gloo", 3), one_host("gloo", 6),
                                           Placement{"shm+gloo", {0, 0, 1, 1}},
                                           Placement{"shm+gloo", {0, 1, 0, 2, 2, 1, 0, 0}}),
                         [](const auto& test) { return testing::placement_name(test.param); });

}  // namespace
}  // namespace trireme

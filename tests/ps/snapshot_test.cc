// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <vector>

#include "tests/ps/job.h"
#include "tests/support/error_text.h"
#include "tests/support/temporary_folder.h"
#include "trireme/checkpoint/checkpoint.h"

namespace trireme::ps {
namespace {

using trireme::testing::failure_of;

JobLayout mixed_layout() {
  JobLayout layout;
  layout.range_bytes = 4 * 2 * kShardBlock;
  layout.dense.size = 5 * kShardBlock;
  layout.dense.optimizer.name = "adamw";
  layout.dense.parameters = {{.entry = {"all", {19999}, 0, 19999}, .decays = true}};
  SparseTableConfig users, items;
  users.name = "users";
  users.width = 5;
  users.optimizer.name = "adam";
  items.name = "items";
  items.width = 8;
  layout.sparse = {.tables = {users, items}, .slices = 3, .seed = 11};
  return layout;
}

std::vector<std::uint64_t> ids_of(int rank, std::int64_t step) {
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < 29; ++i) {
    ids.push_back((i * 37 + static_cast<std::uint64_t>(rank * 11 + step * 5)) % 101 * 0x123456789);
  }
  return ids;
}

// One step of all ranges; what is pulled afterwards depends on all that was pushed.
void step(Worker& worker, std::int64_t number) {
  worker.wait(worker.pull());
  for (std::size_t i = 0; i < worker.gradients().size(); ++i) {
    worker.gradients()[i] = static_cast<float>(
        std::sin(0.1 * static_cast<double>(i) + static_cast<double>(number) + worker.rank()));
  }
  const std::vector<std::uint64_t> ids = ids_of(worker.rank(), number);
  std::vector<float> users(ids.size() * 5), items(ids.size() * 8);
  for (std::size_t i = 0; i < users.size(); ++i) users[i] = 0.01F * static_cast<float>(i % 17);
  for (std::size_t i = 0; i < items.size(); ++i) items[i] = 0.02F * static_cast<float>(i % 13);
  const std::vector<PushRows> rows = {{.table = 0, .ids = ids, .gradients = users.data()},
                                      {.table = 1, .ids = ids, .gradients = items.data()}};
  worker.push({.learning_rate = 0.01});
  worker.push_rows(rows, {.learning_rate = 0.05});
  worker.end_step();
}

struct Values {
  std::vector<float> dense, users, items;
  bool operator==(const Values&) const = default;
};

Values values_of(Worker& worker) {
  worker.wait(worker.pull());
  Values values;
  values.dense.assign(worker.weights().begin(), worker.weights().end());
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < 101; ++i) ids.push_back(i * 0x123456789);
  values.users.resize(ids.size() * 5);
  values.items.resize(ids.size() * 8);
  const std::vector<PullRows> wanted = {{.table = 0, .ids = ids, .rows = values.users.data()},
                                        {.table = 1, .ids = ids, .rows = values.items.data()}};
  worker.wait(worker.pull_rows(wanted));
  return values;
}

TEST(Snapshot, GoesOnBitForBitOnAnotherNumberOfServers) {
  const trireme::testing::TemporaryFolder folder;
  const JobLayout layout = mixed_layout();
  Values unbroken;
  {
    Job job({.servers = 2, .workers = 2});
    job.run(layout, [&](Worker& worker) {
      if (worker.rank() == 0) worker.wait(worker.init());
      for (std::int64_t i = 0; i < 7; ++i) {
        if (i == 3 && worker.rank() == 0) save_snapshot(worker, folder.path().string(), 3);
        step(worker, i);
      }
      if (worker.rank() == 0) unbroken = values_of(worker);
    });
  }
  for (const int servers : {1, 3}) {
    Job job({.servers = servers, .workers = 2});
    job.run(layout, [&](Worker& worker) {
      if (worker.rank() == 0) {
        EXPECT_EQ(load_snapshot(worker, resolve_checkpoint(folder.path().string())), 3);
      }
      for (std::int64_t i = 3; i < 7; ++i) step(worker, i);
      if (worker.rank() == 0) {
        EXPECT_TRUE(values_of(worker) == unbroken) << servers;
      }
    });
  }
}

TEST(Snapshot, OfAnotherJobOrDamagedIsRefused) {
  const trireme::testing::TemporaryFolder folder;
  JobLayout layout = mixed_layout();
  {
    Job job({});
    job.run(layout, [&](Worker& worker) {
      worker.wait(worker.init());
      save_snapshot(worker, folder.path().string(), 1);
    });
  }
  const std::string path = resolve_checkpoint(folder.path().string());
  layout.sparse.slices = 4;
  {
    Job job({});
    job.run(layout, [&](Worker& worker) {
      EXPECT_THAT(failure_of([&] { load_snapshot(worker, path); }),
                  ::testing::HasSubstr("tables in 4 and 3 slices"));
    });
  }
  {
    std::fstream file(path + "/range-00002.state", std::ios::in | std::ios::out);
    file.seekp(20);
    file.put('x');
  }
  Job job({});
  job.run(mixed_layout(), [&](Worker& worker) {
    EXPECT_THAT(failure_of([&] { load_snapshot(worker, path); }),
                ::testing::HasSubstr("range-00002.state"));
  });
}

}  // namespace
}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "tests/ps/job.h"
#include "tests/support/error_text.h"
#include "tests/support/temporary_folder.h"
#include "trireme/checkpoint/checkpoint.h"
#include "trireme/ps/state_file.h"

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
  layout.sparse.tables.pop_back();
  {
    Job job({});
    job.run(layout, [&](Worker& worker) {
      EXPECT_THAT(failure_of([&] { load_snapshot(worker, path); }),
                  ::testing::HasSubstr("1 and 2 sparse tables"));
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

// As it is when the answer of a server is lost, or the server, and the worker asks again.
TEST(Snapshot, RangesThatAreSavedAgainStayAsTheyAre) {
  const trireme::testing::TemporaryFolder folder;
  Job job({.servers = 3, .workers = 1});
  job.run(mixed_layout(), [&](Worker& worker) {
    worker.wait(worker.init());
    step(worker, 0);
    std::vector<std::string> paths;
    for (std::size_t i = 0; i < worker.layout().num_ranges(); ++i) {
      paths.push_back(folder / std::to_string(i));
    }
    const std::vector<std::string> digests = worker.save_ranges(paths);
    EXPECT_EQ(worker.save_ranges(paths), digests);
    ASSERT_TRUE(job.await_backups(3));
    job.end_server(1);
    EXPECT_EQ(worker.save_ranges(paths), digests);
  });
}

// What two workers have at the beginning of each step.
std::vector<Values> values_by_step(std::int64_t steps) {
  std::vector<Values> values;
  Job job({.servers = 1, .workers = 2});
  job.run(mixed_layout(), [&](Worker& worker) {
    if (worker.rank() == 0) worker.wait(worker.init());
    for (std::int64_t i = 0; i < steps; ++i) {
      if (worker.rank() == 0) values.push_back(values_of(worker));
      step(worker, i);
    }
    if (worker.rank() == 0) values.push_back(values_of(worker));
  });
  return values;
}

// One snapshot after the other, while a server is lost: each is whole and of one moment.
TEST(Snapshot, IsWholeWhenAServerIsLostWhileItIsSaved) {
  constexpr std::int64_t kSteps = 5;
  const std::vector<Values> expected = values_by_step(kSteps);
  for (const int lost : {0, 1, 2}) {
    const trireme::testing::TemporaryFolder folder(trireme::testing::memory_folder());
    Job job({.servers = 3, .workers = 2});
    job.run(mixed_layout(), [&](Worker& worker) {
      if (worker.rank() == 0) worker.wait(worker.init());
      for (std::int64_t i = 0; i < kSteps; ++i) {
        if (worker.rank() == 0) save_snapshot(worker, folder.path().string(), i);
        if (worker.rank() == 1 && i == lost + 1) job.end_server(lost);
        step(worker, i);
      }
    });
    const std::vector<std::string> paths = list_checkpoints(folder.path().string());
    ASSERT_EQ(paths.size(), static_cast<std::size_t>(kSteps));
    for (std::size_t i = 0; i < paths.size(); ++i) {
      Job reader({.servers = 2, .workers = 1});
      reader.run(mixed_layout(), [&](Worker& worker) {
        EXPECT_EQ(load_snapshot(worker, paths[i]), static_cast<std::int64_t>(i));
        EXPECT_TRUE(values_of(worker) == expected[i]) << "server " << lost << ", step " << i;
      });
      for (const auto& entry : std::filesystem::directory_iterator(paths[i])) {
        EXPECT_FALSE(entry.path().string().ends_with(kUnfinishedSuffix)) << entry.path();
      }
    }
  }
}

// As a worker leaves it that is killed before all ranges are saved, or after.
TEST(Snapshot, ThatWasNotCommittedIsNeverRead) {
  for (const std::size_t saved : {std::size_t{2}, std::size_t{6}}) {
    const trireme::testing::TemporaryFolder folder;
    const std::string snapshots = folder.path().string();
    Job job({.servers = 2, .workers = 1});
    job.run(mixed_layout(), [&](Worker& worker) {
      worker.wait(worker.init());
      save_snapshot(worker, snapshots, 0);
      step(worker, 0);
      std::filesystem::path left;
      {
        CheckpointWriter writer(snapshots, 1);
        std::vector<std::string> paths;
        for (std::size_t i = 0; i < worker.layout().num_ranges(); ++i) {
          paths.push_back(i < saved ? writer.path_for("range-0000" + std::to_string(i) + ".state")
                                    : (folder / std::to_string(i)).string());
        }
        worker.save_ranges(paths);
        left = std::filesystem::path(paths[0]).parent_path();
        std::filesystem::copy(left, folder / "kept");
      }
      std::filesystem::rename(folder / "kept", left);
      EXPECT_EQ(std::filesystem::path(resolve_checkpoint(snapshots)).filename(), "step-00000000");
      EXPECT_THAT(failure_of([&] { load_snapshot(worker, left.string()); }),
                  ::testing::HasSubstr(left.string()));
      save_snapshot(worker, snapshots, 1);
      EXPECT_EQ(std::filesystem::path(resolve_checkpoint(snapshots)).filename(), "step-00000001");
    });
  }
}

TEST(Snapshot, OfOtherRangesIsRefusedInOneLine) {
  const trireme::testing::TemporaryFolder folder;
  {
    Job job({});
    job.run(mixed_layout(), [&](Worker& worker) {
      worker.wait(worker.init());
      save_snapshot(worker, folder.path().string(), 1);
    });
  }
  const std::string path = resolve_checkpoint(folder.path().string());
  const auto refusal = [&](const std::function<void(JobLayout&)>& change) {
    JobLayout layout = mixed_layout();
    change(layout);
    std::string text;
    Job job({});
    job.run(layout,
            [&](Worker& worker) { text = failure_of([&] { load_snapshot(worker, path); }); });
    EXPECT_THAT(text, ::testing::AllOf(::testing::HasSubstr("snapshot of another job"),
                                       ::testing::HasSubstr(path),
                                       ::testing::Not(::testing::HasSubstr("\n"))));
    return text;
  };
  EXPECT_THAT(refusal([](auto& l) { l.range_bytes *= 2; }),
              ::testing::HasSubstr("ranges of 65536 and 32768 bytes"));
  EXPECT_THAT(refusal([](auto& l) { l.sparse.tables[0].width = 6; }),
              ::testing::HasSubstr("'users' of width 6 and 'users' of width 5"));
  EXPECT_THAT(refusal([](auto& l) { l.sparse.tables[1].optimizer.name = "adagrad"; }),
              ::testing::HasSubstr("optimizer of sparse table 'items' adagrad and sgd"));
  EXPECT_THAT(refusal([](auto& l) { l.dense.optimizer.beta1 = 0.5; }),
              ::testing::HasSubstr("beta1 0.5 and the method's own"));
  EXPECT_THAT(refusal([](auto& l) { l.sparse.seed = 12; }),
              ::testing::HasSubstr("seed of tables 12 and 11"));
}

// Each row where its id lies now, and then the same training.
TEST(Snapshot, GoesOnBitForBitWithAnotherNumberOfSlices) {
  constexpr std::int64_t kSaved = 3, kSteps = 5;
  const std::vector<Values> expected = values_by_step(kSteps);
  const trireme::testing::TemporaryFolder folder;
  {
    Job job({.servers = 2, .workers = 2});
    job.run(mixed_layout(), [&](Worker& worker) {
      if (worker.rank() == 0) worker.wait(worker.init());
      for (std::int64_t i = 0; i < kSaved; ++i) step(worker, i);
      if (worker.rank() == 0) save_snapshot(worker, folder.path().string(), kSaved);
    });
  }
  for (const int slices : {1, 2, 7}) {
    JobLayout layout = mixed_layout();
    layout.sparse.slices = slices;
    Job job({.servers = 2, .workers = 2});
    job.run(layout, [&](Worker& worker) {
      if (worker.rank() == 0) load_snapshot(worker, resolve_checkpoint(folder.path().string()));
      for (std::int64_t i = kSaved; i < kSteps; ++i) step(worker, i);
      if (worker.rank() != 0) return;
      EXPECT_TRUE(values_of(worker) == expected[kSteps]) << slices << " slices";
      std::set<std::uint64_t> users;
      for (int rank = 0; rank < 2; ++rank) {
        for (std::int64_t i = 0; i < kSteps; ++i) {
          for (const std::uint64_t id : ids_of(rank, i)) users.insert(id);
        }
      }
      EXPECT_EQ(worker.report().rows, static_cast<std::int64_t>(2 * users.size()));
    });
  }
}

}  // namespace
}  // namespace trireme::ps

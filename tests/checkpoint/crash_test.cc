// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Writers that are killed: before every change that they make to the file system, and at random.

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>
#include <random>
#include <stdexcept>

#include "tests/checkpoint/fixture.h"
#include "tests/support/files.h"
#include "tests/support/syscall_tracer.h"
#include "trireme/base/error.h"
#include "trireme/checkpoint/atomic_file.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using testing::CheckpointTest;
using ::testing::ElementsAre;
using testing::file_changes_of;
using testing::FileChange;
using testing::killed_at_file_change;
using testing::read_text;
using testing::write_text;

class CrashTest : public CheckpointTest {
 protected:
  // Runs body once for each change that it makes, killed before it, from a fresh copy of the folder
  // as it is now, and calls check after each. Returns the number of kills.
  int for_each_kill(const std::function<void()>& body, const std::function<void(int)>& check) {
    const fs::path start = temporary_ / "start";
    fs::rename(folder(), start);
    int kills = 0;
    while (true) {
      fs::remove_all(folder());
      fs::copy(start, folder(), fs::copy_options::recursive);
      if (!killed_at_file_change(kills, body)) return kills;
      check(kills++);
      if (HasFailure()) return kills;
    }
  }

  // The next writer finds the folder in order, whatever was left.
  void expect_usable(std::int64_t next_step) {
    save(next_step, 99);
    for (const std::string& path : list_checkpoints(folder())) variant_of(path);
    for (const std::string& name : names()) {
      EXPECT_EQ(fs::path(name).extension(), "") << name << " is left over";
    }
  }
};

TEST_F(CrashTest, KilledBeforeEveryChangeOfANewCheckpoint) {
  save(6, 1);
  const auto check = [&](int kill) {
    const std::vector<std::string> found = list_checkpoints(folder());
    ASSERT_THAT(found.size(), AnyOf(1u, 2u)) << kill;
    EXPECT_EQ(variant_of(found[0]), 1) << kill;
    EXPECT_EQ(variant_of(found.back()), static_cast<int>(found.size())) << kill;
    expect_usable(8);
  };
  EXPECT_GT(for_each_kill([&] { save(7, 2); }, check), 12);
}

TEST_F(CrashTest, KilledBeforeEveryChangeOfAReplacement) {
  save(6, 1);
  save(7, 2);
  const auto check = [&](int kill) {
    const std::vector<std::string> found = list_checkpoints(folder());
    ASSERT_EQ(found.size(), 2u) << kill;
    EXPECT_EQ(variant_of(found[0]), 1) << kill;
    const int before = variant_of(found[1]);
    EXPECT_THAT(before, AnyOf(2, 3)) << kill;
    expect_usable(8);
    EXPECT_EQ(variant_of(step_folder("step-00000007")), before) << kill;
  };
  EXPECT_GT(for_each_kill([&] { save(7, 3); }, check), 18);
}

TEST_F(CrashTest, KilledBeforeEveryChangeOfARecovery) {
  save(6, 1);
  save(7, 2);
  fs::rename(step_folder("step-00000007"), step_folder("step-00000007.old"));
  fs::rename(save((temporary_ / "other").string(), 6, 4), step_folder("step-00000006.old"));
  fs::create_directories(step_folder("step-00000007.tmp"));
  write_text(step_folder("step-00000006.gone/half"), "x");
  const auto write_next = [&] { CheckpointWriter(folder(), 8).commit({}); };
  const auto check = [&](int kill) {
    const std::vector<std::string> found = list_checkpoints(folder());
    ASSERT_THAT(found.size(), AnyOf(2u, 3u)) << kill;
    EXPECT_EQ(variant_of(found[0]), 1) << kill;
    EXPECT_EQ(variant_of(found[1]), 2) << kill;
    write_next();
    EXPECT_THAT(names(), ElementsAre("step-00000006", "step-00000007", "step-00000008"));
  };
  EXPECT_GT(for_each_kill(write_next, check), 10);
}

TEST_F(CrashTest, KilledBeforeEveryChangeOfAPrune) {
  for (const int step : {5, 6, 7}) save(step, step);
  const auto check = [&](int kill) {
    const std::vector<std::string> found = list_checkpoints(folder());
    ASSERT_GE(found.size(), 1u) << kill;
    for (const std::string& path : found) variant_of(path);
    EXPECT_EQ(variant_of(found.back()), 7) << kill;
    prune_checkpoints(folder(), 1);
    EXPECT_THAT(names(), ElementsAre("step-00000007"));
  };
  EXPECT_GT(for_each_kill([&] { prune_checkpoints(folder(), 1); }, check), 8);
}

TEST_F(CrashTest, KilledBeforeEveryChangeOfAnAtomicFile) {
  const std::string path = step_folder("summary.json");
  write_text(path, "old");
  const auto check = [&](int kill) {
    EXPECT_THAT(read_text(path), AnyOf("old", "new and longer")) << kill;
    write_file_atomically(path, "third");
    EXPECT_EQ(read_text(path), "third");
    EXPECT_THAT(names(), ElementsAre("summary.json"));
  };
  const int kills = for_each_kill([&] { write_file_atomically(path, "new and longer"); }, check);
  EXPECT_EQ(kills, 5);  // create, write, fsync, rename, fsync of the folder
}

// What power loss would test: nothing is renamed before it is on the disk, and no rename is relied
// on before the folder is.
TEST_F(CrashTest, EverythingIsFlushedBeforeItIsRelied) {
  save(7, 1);
  const std::vector<FileChange> changes = file_changes_of([&] { save(7, 2); });
  const auto find = [&](const std::string& call, const std::string& path, std::size_t from) {
    std::size_t i = from;
    while (i < changes.size() && !(changes[i].call == call && changes[i].path == path)) ++i;
    return i;
  };
  const std::string temporary = step_folder("step-00000007.tmp");
  const std::string aside = step_folder("step-00000007.old");
  const std::size_t set_aside = find("rename", step_folder("step-00000007"), 0);
  const std::size_t renamed = find("rename", temporary, set_aside);
  const std::size_t replaced = find("rename", aside, renamed);
  ASSERT_LT(replaced, changes.size());

  std::size_t last_created = 0;
  for (const char* name : {"/model.safetensors", "/tokenizer.json", "/checkpoint.json"}) {
    const std::string file = temporary + name;
    const std::size_t created = find("create", file, 0);
    ASSERT_LT(created, set_aside) << name;
    last_created = std::max(last_created, created);
    std::size_t written = find("write", file, created);
    ASSERT_LT(written, set_aside) << name;
    for (std::size_t next = written; next < changes.size(); next = find("write", file, next + 1)) {
      written = next;
    }
    EXPECT_LT(find("fsync", file, written), set_aside) << name;
  }
  EXPECT_LT(find("fsync", temporary, last_created), set_aside);
  EXPECT_LT(find("fsync", folder(), renamed), replaced);
  EXPECT_LT(find("fsync", folder(), replaced), find("remove", "checkpoint.json", replaced));
}

// A child process that works without end and reports its progress through a pipe.
class EndlessChild {
 public:
  using Report = std::function<void(std::int64_t)>;

  explicit EndlessChild(const std::function<void(const Report&)>& body) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(ends[0]);
      try {
        body([&](std::int64_t value) {
          if (::write(ends[1], &value, sizeof(value)) != sizeof(value)) ::_exit(2);
        });
      } catch (...) {
      }
      ::_exit(1);
    }
    ::close(ends[1]);
    progress_ = ends[0];
  }
  ~EndlessChild() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    ::close(progress_);
  }
  // Waits for the next report; nothing when the child failed.
  std::optional<std::int64_t> next() const {
    std::int64_t value = 0;
    if (::read(progress_, &value, sizeof(value)) != sizeof(value)) return std::nullopt;
    return value;
  }

 private:
  pid_t pid_ = -1;
  int progress_ = -1;
};

// The child reports each stage of its work and works on while the parent reads; the parent kills it
// after an uneven number of reports.
TEST_F(CrashTest, KilledAtRandomMoments) {
  constexpr std::int64_t kStage = -1;
  std::mt19937 random(7);
  std::int64_t committed = 0;
  for (int round = 0; round < 25; ++round) {
    {
      const EndlessChild child([&](const EndlessChild::Report& report) {
        for (std::int64_t step = committed + 1;; ++step) {
          // Odd steps replace the step before them, so that both ways of committing are hit.
          CheckpointWriter writer(folder(), step - step % 2);
          report(kStage);
          writer.add_tensors("model.safetensors", weights(static_cast<int>(step)).tensors());
          report(kStage);
          writer.add_file("tokenizer.json", "{\"variant\": " + std::to_string(step) + "}\n");
          report(kStage);
          writer.commit({{"variant", std::to_string(step)}});
          report(step);
          prune_checkpoints(folder(), 2);
        }
      });
      for (unsigned reports = (round == 0 ? 4 : 1) + random() % 13; reports > 0; --reports) {
        const std::optional<std::int64_t> report = child.next();
        ASSERT_TRUE(report.has_value()) << "the child failed";
        committed = std::max(committed, *report);
      }
    }
    const std::vector<std::string> found = list_checkpoints(folder());
    ASSERT_FALSE(found.empty());
    for (const std::string& path : found) variant_of(path);
    const std::int64_t last = variant_of(found.back());
    EXPECT_GE(last, committed) << "a committed checkpoint is lost in round " << round;
    committed = last;
  }
  EXPECT_GT(committed, 20);
}

}  // namespace
}  // namespace trireme

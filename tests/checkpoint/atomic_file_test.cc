// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using testing::read_text;
using testing::TemporaryFolder;
using ::testing::ThrowsMessage;
using testing::write_text;

std::size_t num_entries(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

TEST(AtomicFileTest, CreatesAndReplaces) {
  const TemporaryFolder folder;
  const std::string path = (folder / "a.json").string();
  const std::string content("one\0two", 7);
  write_file_atomically(path, content);
  EXPECT_EQ(read_text(path), content);
  write_file_atomically(path, "");
  EXPECT_EQ(read_text(path), "");
  EXPECT_EQ(num_entries(folder.path()), 1u);
}

TEST(AtomicFileTest, ALeftoverOfAKilledWriterIsOverwritten) {
  const TemporaryFolder folder;
  const std::string path = (folder / "a.json").string();
  write_text(path + ".tmp", "a much longer leftover");
  write_file_atomically(path, "new");
  EXPECT_EQ(read_text(path), "new");
  EXPECT_EQ(num_entries(folder.path()), 1u);
}

TEST(AtomicFileTest, AFailureLeavesThePathAsItWas) {
  const TemporaryFolder folder;
  const std::string blocked = (folder / "blocked").string();
  write_text(blocked + "/inside", "kept");
  EXPECT_THAT([&] { write_file_atomically(blocked, "new"); },
              ThrowsMessage<CheckpointError>(HasSubstr("Is a directory")));
  EXPECT_EQ(read_text(blocked + "/inside"), "kept");
  EXPECT_EQ(num_entries(folder.path()), 1u);
  EXPECT_THAT([&] { write_file_atomically((folder / "none/a").string(), "x"); },
              ThrowsMessage<CheckpointError>(HasSubstr("No such file")));
}

TEST(AtomicFileTest, SyncFolderNamesWhatItCannotOpen) {
  const TemporaryFolder folder;
  EXPECT_NO_THROW(sync_folder(folder.path().string()));
  EXPECT_THAT([&] { sync_folder((folder / "none").string()); },
              ThrowsMessage<CheckpointError>(HasSubstr("none")));
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/state_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/temporary_folder.h"

namespace trireme::ps {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using trireme::testing::failure_of;
using trireme::testing::TemporaryFolder;

std::vector<std::byte> state_of(int writer) {
  std::vector<std::byte> state(100'003);
  for (std::size_t i = 0; i < state.size(); ++i) {
    state[i] = static_cast<std::byte>(i * 7 + static_cast<std::size_t>(writer));
  }
  return state;
}

std::string write(const std::string& path, int writer) {
  return write_state_file(path, [writer](const auto& take) {
    const std::vector<std::byte> state = state_of(writer);
    take(Bytes(state).first(777));
    take(Bytes(state).subspan(777));
  });
}

std::vector<std::byte> read(const std::string& path, const std::string& digest) {
  std::vector<std::byte> state;
  read_state_file(path, digest, [&](std::size_t bytes) {
    state.resize(bytes);
    return std::span(state);
  });
  return state;
}

std::size_t files_in(const std::filesystem::path& folder) {
  const std::filesystem::directory_iterator files(folder);
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

TEST(StateFile, ComesBack) {
  const TemporaryFolder folder;
  const std::string digest = write(folder / "range", 3);
  EXPECT_EQ(read(folder / "range", digest), state_of(3));
  EXPECT_EQ(files_in(folder.path()), 1U) << "nothing is left over";
}

// A server is asked again when its answer was lost, and another when it was itself.
TEST(StateFile, IsTheFirstThatWasWhole) {
  const TemporaryFolder folder;
  const std::string first = write(folder / "range", 1);
  EXPECT_EQ(write(folder / "range", 2), first);
  EXPECT_EQ(read(folder / "range", first), state_of(1));
  EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(StateFile, IsWholeHoweverManyWriteIt) {
  constexpr int kWriters = 4;
  const TemporaryFolder folder;
  std::vector<std::string> digests(kWriters);
  std::vector<std::thread> threads;
  for (int i = 0; i < kWriters; ++i) {
    threads.emplace_back(
        [&, i] { digests[static_cast<std::size_t>(i)] = write(folder / "range", i); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(digests, std::vector<std::string>(kWriters, digests[0]));
  read(folder / "range", digests[0]);
}

TEST(StateFile, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  EXPECT_THAT(failure_of([&] { write(folder / "none/range", 1); }), HasSubstr("none/range"));
  const std::string digest = write(folder / "range", 1);
  EXPECT_THAT(failure_of([&] { read(folder / "other", digest); }), HasSubstr("/other"));
  std::filesystem::resize_file(folder / "range", 100'000);
  EXPECT_THAT(failure_of([&] { read(folder / "range", digest); }),
              AllOf(HasSubstr("/range' is damaged"), HasSubstr(digest)));
}

}  // namespace
}  // namespace trireme::ps

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ParameterServerStrategy in processes of its own: started by itself, by a launcher, and lost.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;

const Program::Environment kNothing = {{"TRIREME_SECRET", ""}};

ProgramResult run(std::vector<std::string> arguments, const std::vector<std::string>& launch = {},
                  const Program::Environment& environment = kNothing) {
  std::vector<std::string> argv = launch;
  argv.emplace_back(TRIREME_SERVED_MODEL);
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return run_program(argv, std::chrono::seconds(60), environment);
}

std::vector<std::string> launch(int servers, int workers) {
  std::vector<std::string> argv = {kTrireme, "launch", "--workers", std::to_string(workers)};
  if (servers > 0) argv.insert(argv.end(), {"--servers", std::to_string(servers)});
  argv.emplace_back("--");
  return argv;
}

// By rank: what it got.
std::map<int, std::string> results(const ProgramResult& result) {
  std::map<int, std::string> found;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) {
    found[std::stoi(line.substr(line.find(' ')))] = line.substr(line.find(": "));
  }
  return found;
}

void expect_all(const ProgramResult& result, int workers, const std::string& expected) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::map<int, std::string> found = results(result);
  EXPECT_EQ(found.size(), workers) << result.out;
  for (const auto& [rank, text] : found) EXPECT_EQ(text, expected) << "rank " << rank;
}

TEST(ServedModelProcesses, GetTheSameHoweverTheyAreStarted) {
  const ProgramResult alone = run({});
  ASSERT_EQ(results(alone).size(), 1) << alone.out << alone.err;
  const std::string expected = results(alone)[0];
  EXPECT_THAT(expected, HasSubstr("which learned"));
  expect_all(alone, 1, expected);
  expect_all(run({"workers", "2", "servers", "2"}), 2, expected);
  expect_all(run({"servers", "2"}, launch(0, 4)), 4, expected);
  expect_all(run({"workers", "2", "servers", "2"}, launch(2, 2)), 2, expected);
}

TEST(ServedModelProcesses, WithoutSyncEachGetsItsOwn) {
  const ProgramResult result = run({"workers", "3", "consistency", "bounded(1)"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(results(result).size(), 3) << result.out;
  for (const auto& [rank, text] : results(result)) EXPECT_THAT(text, HasSubstr("which learned"));
}

// Who is left has one result.
void expect_survivors(const ProgramResult& result, const std::vector<int>& ranks) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::map<int, std::string> found = results(result);
  ASSERT_EQ(found.size(), ranks.size()) << result.out << result.err;
  for (const int rank : ranks) {
    ASSERT_TRUE(found.contains(rank)) << result.out;
    EXPECT_EQ(found.at(rank), found.at(ranks[0])) << "rank " << rank;
    EXPECT_THAT(found.at(rank), HasSubstr("which learned"));
  }
}

TEST(ServedModelProcesses, ACompanionThatIsKilledIsDoneWithout) {
  const ProgramResult result = run({"workers", "4", "servers", "2", "kill", "2"});
  expect_survivors(result, {0, 1, 3});
  EXPECT_THAT(result.err, HasSubstr("worker 2 was killed by signal 9"));
  EXPECT_THAT(result.err, HasSubstr("the others have gone on without it"));
}

TEST(ServedModelProcesses, ALaunchedWorkerThatIsKilledIsDoneWithout) {
  expect_survivors(run({"kill", "1"}, launch(2, 4)), {0, 2, 3});
  expect_survivors(run({"kill", "0"}, launch(2, 4)), {1, 2, 3});
}

void expect_refused_launch(const ProgramResult& result, const std::string& line) {
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_THAT(result.err, HasSubstr(line));
}

TEST(ServedModelProcesses, RefuseOtherNumbersThanTheLaunchers) {
  expect_refused_launch(run({"workers", "3"}, launch(1, 1)),
                        "the strategy asks for 3 workers, but trireme has already started 1: leave "
                        "workers out\n");
  expect_refused_launch(run({"servers", "3"}, launch(2, 1)),
                        "the strategy asks for 3 servers, but trireme has already started 2: leave "
                        "servers out\n");
  const Program::Environment torchrun = {{"RANK", "0"},
                                         {"WORLD_SIZE", "4"},
                                         {"LOCAL_RANK", "0"},
                                         {"LOCAL_WORLD_SIZE", "2"},
                                         {"MASTER_ADDR", "127.0.0.1"},
                                         {"MASTER_PORT", "1"}};
  expect_refused_launch(run({"servers", "3"}, {}, torchrun),
                        "torchrun has started 4 workers, 2 of them here, but no parameter servers: "
                        "start them with trireme launch --servers 3 --workers 2 -- PROGRAM\n");
}

}  // namespace
}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme bench comm: its lines, its own workers, somebody else's ranks, bad input. No times.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"
#include "tests/support/ranks.h"

namespace trireme::testing {
namespace {

const std::vector<std::string> kQuick = {"--repetitions", "5", "--seconds", "0.001"};

ProgramResult bench_comm(std::vector<std::string> arguments,
                         const Program::Environment& variables = {}) {
  std::vector<std::string> argv = {kTrireme, "bench", "comm"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  argv.insert(argv.end(), kQuick.begin(), kQuick.end());
  return run_program(argv, std::chrono::seconds(120), variables);
}

std::vector<nlohmann::json> rows(const std::string& out) {
  std::vector<nlohmann::json> result;
  std::istringstream lines(out);
  for (std::string line; std::getline(lines, line);) result.push_back(nlohmann::json::parse(line));
  return result;
}

TEST(BenchComm, JsonHasOneObjectPerCase) {
  const ProgramResult result = bench_comm({"--op", "all_reduce", "--ranks", "2", "--engine", "shm",
                                           "--bytes", "4KiB,64", "--memory", "heap", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<nlohmann::json> all = rows(result.out);
  ASSERT_EQ(all.size(), 2U) << result.out;
  std::vector<std::string> keys;
  for (const auto& [key, value] : all[1].items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"bus_gb_per_s", "bytes", "dtype", "engine", "median_us",
                                            "memory", "op", "p10_us", "p90_us", "ranks",
                                            "share_of_limit"}));
  EXPECT_EQ(all[0]["bytes"], 64);
  EXPECT_EQ(all[1]["bytes"], 4096);
  EXPECT_EQ(all[1]["op"], "all_reduce");
  EXPECT_EQ(all[1]["engine"], "shm");
  EXPECT_EQ(all[1]["ranks"], 2);
  EXPECT_EQ(all[1]["dtype"], "f32");
  EXPECT_GT(all[1]["median_us"], 0);
  EXPECT_GT(all[1]["share_of_limit"], 0);
  // 2 (n - 1) / n = 1 for two ranks.
  EXPECT_NEAR(all[1]["bus_gb_per_s"].get<double>() * all[1]["median_us"].get<double>(), 4.096,
              1e-6);
}

TEST(BenchComm, EveryOperationEngineAndRankCount) {
  const ProgramResult result = bench_comm(
      {"--ranks", "2,3", "--bytes", "1KiB", "--dtype", "bf16", "--json"});  // both memories
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::set<std::string> seen;
  for (const nlohmann::json& row : rows(result.out)) {
    seen.insert(row["op"].get<std::string>() + " " + row["engine"].get<std::string>() + " " +
                std::to_string(row["ranks"].get<int>()) + " " + row["memory"].get<std::string>());
  }
  for (const char* op : {"all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast",
                         "reduce", "gather", "scatter", "send_recv", "barrier"}) {
    for (const char* subject : {" shm 2 heap", " shm 3 heap", " shm 2 shared", " shm 3 shared",
                                " gloo 2 heap", " gloo 3 heap"}) {
      EXPECT_TRUE(seen.contains(std::string(op) + subject)) << op << subject;
    }
  }
}

TEST(BenchComm, TheTableHasAHeadOnce) {
  const ProgramResult result = bench_comm(
      {"--op", "barrier,broadcast", "--ranks", "1,2", "--engine", "shm", "--bytes", "64KiB"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::size_t head = result.out.find("bus GB/s");
  ASSERT_NE(head, std::string::npos) << result.out;
  EXPECT_EQ(result.out.find("bus GB/s", head + 1), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("cores, commit "), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("64 KiB"), std::string::npos) << result.out;
}

// As torchrun starts them: the ranks that are there, and only rank 0 speaks.
TEST(BenchComm, UsesTheRanksOfALauncher) {
  const Listener free_port = listen_on_free_port();
  ::close(free_port.fd);
  const auto environment = [&](const char* rank) {
    return Program::Environment{{"RANK", rank},
                                {"WORLD_SIZE", "2"},
                                {"LOCAL_RANK", rank},
                                {"LOCAL_WORLD_SIZE", "2"},
                                {"MASTER_ADDR", "127.0.0.1"},
                                {"MASTER_PORT", std::to_string(free_port.port)}};
  };
  const std::vector<std::string> argv = {kTrireme,     "bench",         "comm",     "--op",
                                         "all_gather", "--engine",      "shm,gloo", "--bytes",
                                         "1KiB",       "--repetitions", "5",        "--json"};
  Program second(argv, environment("1"));
  const ProgramResult first = run_program(argv, std::chrono::seconds(60), environment("0"));
  const ProgramResult other = second.wait(std::chrono::seconds(60));
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(other.exit_code, 0) << other.err;
  EXPECT_EQ(other.out, "");
  const std::vector<nlohmann::json> all = rows(first.out);
  ASSERT_EQ(all.size(), 3U) << first.out;
  EXPECT_EQ(all[0]["engine"], "shm");
  EXPECT_EQ(all[1]["memory"], "shared");
  EXPECT_EQ(all[2]["engine"], "gloo");
  expect_refused(bench_comm({"--ranks", "2"}, environment("0")), {"--ranks", "torchrun", "2"});
}

TEST(BenchComm, BadInputIsOneLine) {
  expect_refused(bench_comm({"--op", "allreduce"}), {"allreduce", "all_reduce"});
  expect_refused(bench_comm({"--engine", "pigeon"}), {"pigeon", "shm"});
  expect_refused(bench_comm({"--ranks", "0"}), {"--ranks", "0"});
  expect_refused(bench_comm({"--ranks", "two"}), {"--ranks", "two"});
  expect_refused(bench_comm({"--bytes", "4kb"}), {"4kb", "4KiB"});
  expect_refused(bench_comm({"--bytes", "8000GiB"}), {"--bytes", "available"});
  expect_refused(bench_comm({"--dtype", "float"}), {"float", "f32"});
  expect_refused(bench_comm({"--memory", "disk"}), {"disk", "heap", "shared"});
  expect_refused(run_program({kTrireme, "bench", "comm", "--repetitions", "1"}), {"1", "5"});
  expect_refused(run_program({kTrireme, "bench", "comm", "--seconds", "-1"}), {"-1"});
}

}  // namespace
}  // namespace trireme::testing

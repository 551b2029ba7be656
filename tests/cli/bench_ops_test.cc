// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// trireme bench ops: its lines, its table, bad input. No times.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/fixture.h"

namespace trireme::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ProgramResult bench_ops(std::vector<std::string> arguments) {
  std::vector<std::string> argv = {kTrireme, "bench",     "ops",  "--threads",
                                   "1",      "--seconds", "0.001"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return run_program(argv, std::chrono::seconds(120));
}

TEST(BenchOps, JsonHasForwardAndBothOfAnOperation) {
  const ProgramResult result = bench_ops({"--op", "rms_norm,rotary", "--dtype", "bf16", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::vector<std::string> seen, keys;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    seen.push_back(row["op"].get<std::string>() + " " + row["direction"].get<std::string>());
    EXPECT_EQ(row["dtype"], "bf16");
    EXPECT_EQ(row["limit"], "memory");
    EXPECT_TRUE(row["gflops_per_s"].is_null());
    EXPECT_GT(row["share_of_limit"], 0);
    keys.clear();
    for (const auto& [key, value] : row.items()) keys.push_back(key);
  }
  EXPECT_THAT(seen,
              ElementsAre("rms_norm forward", "rms_norm both", "rotary forward", "rotary both"));
  EXPECT_THAT(keys, ElementsAre("commit", "direction", "dtype", "gb_per_s", "gflops_per_s", "limit",
                                "limit_ms", "ms", "ms_p10", "ms_p90", "op", "shape",
                                "share_of_limit", "threads"));
}

// [4, 256, 12, 64] f32 is read and written: 6291456 bytes.
TEST(BenchOps, BytesAreThoseThatMustMove) {
  const ProgramResult result = bench_ops({"--op", "rotary", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto row = nlohmann::json::parse(result.out.substr(0, result.out.find('\n')));
  EXPECT_NEAR(row["gb_per_s"].get<double>() * row["ms"].get<double>(), 6.291456, 1e-6);
}

TEST(BenchOps, TheTableNamesItsLimit) {
  const ProgramResult result = bench_ops({"--op", "adamw"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* text : {"cores, commit ", "of limit", "adamw", "[33554432]", "memory"}) {
    EXPECT_THAT(result.out, HasSubstr(text));
  }
  EXPECT_EQ(result.out.find("both"), std::string::npos) << "an update has no backward";
}

TEST(BenchOps, BadInputIsOneLine) {
  expect_refused(bench_ops({"--op", "rotary,gulp"}), {"gulp", "linear", "global_norm"});
  expect_refused(bench_ops({"--dtype", "f64"}), {"f64", "f32", "bf16"});
  expect_refused(bench_ops({"--repetitions", "many"}), {"--repetitions", "many"});
}

}  // namespace
}  // namespace trireme::testing

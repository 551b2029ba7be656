// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What needs no ranks: statistics, sizes, the table of operations, options, the lines printed.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/comm/bench/comm_bench.h"
#include "trireme/comm/bench/operations.h"
#include "trireme/comm/bench/sizes.h"
#include "trireme/comm/bench/statistics.h"

namespace trireme::testing {
namespace {

TEST(BenchStatistics, NearestRankInAnyOrder) {
  const Spread ten = spread_of({10, 1, 9, 2, 8, 3, 7, 4, 6, 5});
  EXPECT_EQ(ten.median, 5);
  EXPECT_EQ(ten.p10, 1);
  EXPECT_EQ(ten.p90, 9);
  const Spread five = spread_of({3, 1, 2, 5, 4});
  EXPECT_EQ(five.median, 3);
  EXPECT_EQ(five.p10, 1);
  EXPECT_EQ(five.p90, 5);
  const Spread one = spread_of({7});
  EXPECT_EQ(one.median, 7);
  EXPECT_EQ(one.p10, 7);
  EXPECT_EQ(one.p90, 7);
  EXPECT_THROW(spread_of({}), InternalError);
}

TEST(BenchStatistics, OneDisturbedSampleMovesNothing) {
  EXPECT_EQ(spread_of({1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1e9}).p90, 1);
}

// The machine gets ten times slower meanwhile; the ratio stays.
TEST(BenchStatistics, ADriftCancelsInPairs) {
  const Spread ratio = paired_ratio({1, 2, 5, 10, 3}, {2, 4, 10, 20, 3});
  EXPECT_EQ(ratio.median, 0.5);
  EXPECT_EQ(ratio.p10, 0.5);
  EXPECT_EQ(ratio.p90, 1);
  EXPECT_THROW(paired_ratio({1, 2}, {1}), InternalError);
}

TEST(BenchSizes, ReadAndWritten) {
  const std::map<std::string, std::int64_t> kGood = {
      {"1", 1},           {"4B", 4},       {"4 KiB", 4096}, {"4KiB", 4096}, {"64MiB", 64 << 20},
      {"2GiB", 2L << 30}, {"4100 B", 4100}};
  for (const auto& [text, bytes] : kGood) EXPECT_EQ(parse_bytes(text), bytes) << text;
  for (const std::string text : {"", "0", "-4", "4kb", "4KB", "KiB", "4 KiB ", "1e6", "4.5KiB",
                                 "9999999999GiB", "99999999999999999999"}) {
    EXPECT_THROW(parse_bytes(text), ConfigError) << text;
  }
  EXPECT_EQ(format_bytes(64 << 20), "64 MiB");
  EXPECT_EQ(format_bytes(4100), "4100 B");
  EXPECT_EQ(format_bytes(4), "4 B");
}

// n = 4, by hand: bus factor, and bytes through memory of all ranks in units of the vector.
TEST(BenchOperations, FactorsOfFourRanks) {
  const std::map<std::string, std::pair<double, double>> kDue = {
      {"all_reduce", {1.5, 8}},       // each reads 1 and writes 1
      {"reduce_scatter", {0.75, 5}},  // each reads 1 and writes a quarter
      {"all_gather", {0.75, 5}},      // each reads a quarter and writes 1
      {"all_to_all", {0.75, 8}},      // each reads 1 and writes 1
      {"broadcast", {1, 4}},          // one reads, three write
      {"reduce", {1, 5}},             // four read, one writes
      {"gather", {0.75, 2}},          // four read a quarter, one writes 1
      {"scatter", {0.75, 2}},         // one reads 1, four write a quarter
      {"send_recv", {1, 8}},          // each reads 1 and writes 1
      {"barrier", {0, 0}},
  };
  ASSERT_EQ(bench_operations().size(), kDue.size());
  for (const BenchOperation& operation : bench_operations()) {
    const auto& [bus, memory] = kDue.at(std::string(operation.name));
    EXPECT_DOUBLE_EQ(operation.bus_factor(4), bus) << operation.name;
    EXPECT_DOUBLE_EQ(operation.memory_factor(4), memory) << operation.name;
  }
}

// What the table says must move is what the inputs and outputs of all ranks are.
TEST(BenchOperations, MemoryFactorCountsEachInputAndOutputOnce) {
  for (const int n : {2, 3, 5}) {
    for (const BenchOperation& operation : bench_operations()) {
      if (operation.in_place) continue;  // there a rank may only read, or only write
      std::int64_t elements = 0;
      const std::int64_t count = 30;
      for (int rank = 0; rank < n; ++rank) {
        const BenchShape shape{.rank = rank, .ranks = n, .count = count};
        elements += operation.input_count(shape) + operation.output_count(shape);
      }
      EXPECT_DOUBLE_EQ(operation.memory_factor(n) * 30, static_cast<double>(elements))
          << operation.name << " " << n;
    }
  }
}

TEST(BenchOperations, NamesAreFoundOrListed) {
  EXPECT_EQ(find_bench_operation("all_to_all").op, BenchOp::kAllToAll);
  try {
    find_bench_operation("allreduce");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("all_reduce, reduce_scatter"), std::string::npos);
  }
}

TEST(BenchOperations, PatternDiffersByRankAndElement) {
  const BenchPattern pattern(3);
  int same_as_neighbour = 0;
  int same_as_other_rank = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    same_as_neighbour += pattern.value(0, i) == pattern.value(0, i + 1);
    same_as_other_rank += pattern.value(0, i) == pattern.value(1, i);
    EXPECT_EQ(pattern.sum(i), pattern.value(0, i) + pattern.value(1, i) + pattern.value(2, i));
  }
  EXPECT_LT(same_as_neighbour, 300);
  EXPECT_LT(same_as_other_rank, 300);
}

TEST(BenchCase, SizesRoundUpToElementsAndBlocks) {
  const BenchSubject three{.rank = 1, .size = 3, .barrier = {}, .max_over_ranks = {}, .run = {}};
  const auto bytes = [&](const char* name, DType dtype, std::int64_t asked) {
    return make_bench_case(find_bench_operation(name), dtype, asked, three).bytes();
  };
  EXPECT_EQ(bytes("all_reduce", DType::kF32, 4), 4);
  EXPECT_EQ(bytes("all_reduce", DType::kBF16, 13), 14);
  EXPECT_EQ(bytes("reduce_scatter", DType::kF32, 4), 12);
  EXPECT_EQ(bytes("reduce_scatter", DType::kF32, 12), 12);
  EXPECT_EQ(bytes("all_gather", DType::kBF16, 13), 18);
  EXPECT_EQ(bytes("barrier", DType::kF32, 4096), 0);
}

TEST(CommBenchOptions, WhatCannotBeIsRefused) {
  const CommBenchOptions good{.operations = {}, .bytes = {4}, .timing = {}};
  EXPECT_NO_THROW(good.validate());
  const auto refused = [&](auto change) {
    CommBenchOptions bad = good;
    change(bad);
    EXPECT_THROW(bad.validate(), ConfigError);
  };
  refused([](CommBenchOptions& o) { o.operations = {"all_reduce", "sum"}; });
  refused([](CommBenchOptions& o) { o.bytes = {}; });
  refused([](CommBenchOptions& o) { o.memory = {"disk"}; });
  refused([](CommBenchOptions& o) { o.timing.max_samples = 4; });
  refused([](CommBenchOptions& o) { o.timing.seconds = 0; });
  refused([](CommBenchOptions& o) { o.timing.seconds = std::nan(""); });
  EXPECT_EQ(parse_dtype("bf16"), DType::kBF16);
  EXPECT_THROW(parse_dtype("float"), ConfigError);
}

TEST(CommBenchRow, JsonHasNullWhereThereIsNoNumber) {
  CommBenchRow row{.op = "all_reduce",
                   .engine = "shm",
                   .memory = "heap",
                   .ranks = 2,
                   .dtype = DType::kF32,
                   .bytes = 4096,
                   .us = {.median = 2.5, .p10 = 2, .p90 = 3},
                   .bus_gb_per_s = 1.6384,
                   .share_of_limit = 0.25};
  EXPECT_EQ(to_json(row),
            R"({"op": "all_reduce", "engine": "shm", "memory": "heap", "ranks": 2, )"
            R"("dtype": "f32", "bytes": 4096, "median_us": 2.5, "p10_us": 2, "p90_us": 3, )"
            R"("bus_gb_per_s": 1.6384, "share_of_limit": 0.25})");
  row.share_of_limit = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(to_json(row).find(R"("share_of_limit": null)"), std::string::npos);
  EXPECT_EQ(to_table(row).size(), table_header().size());
  EXPECT_NE(to_table(row).find("4 KiB"), std::string::npos);
}

}  // namespace
}  // namespace trireme::testing

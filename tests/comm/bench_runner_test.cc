// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The bench with real ranks: what it measures is right, and what is wrong it does not measure.

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/comm/bench/comm_bench.h"
#include "trireme/comm/bench/link_limit.h"
#include "trireme/comm/bench/runner.h"

namespace trireme::testing {
namespace {

constexpr BenchTiming kQuick{.max_samples = 5, .seconds = 1e-3};

std::vector<std::byte> memory_for(const BenchCase& one) {
  return std::vector<std::byte>(bench_vector_bytes(*one.operation, one.shape, one.dtype) + 1);
}

TEST(CommBench, EveryOperationDtypeAndEngineIsRight) {
  for (const char* engine : {"shm", "gloo"}) {
    for (const int n : {2, 3}) {
      run_threads(
          n,
          [](Group& group) {
            const BenchSubject subject = bench_subject(group);
            for (const BenchOperation& operation : bench_operations()) {
              for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16,
                                        DType::kI8, DType::kU8, DType::kI32, DType::kI64}) {
                const BenchCase one = make_bench_case(operation, dtype, 10000, subject);
                std::vector<std::byte> memory = memory_for(one);
                EXPECT_NO_THROW(
                    verify(subject, one, place_bench_vectors(operation, one.shape, dtype, memory)))
                    << operation.name << " " << dtype_name(dtype);
              }
            }
          },
          engine);
    }
  }
}

// A wrong result on one rank is an error on every rank, before anything is timed.
TEST(CommBench, AWrongResultIsNotMeasured) {
  for (const BenchOperation& operation : bench_operations()) {
    if (operation.op == BenchOp::kBarrier) continue;  // no result
    std::atomic<int> refused = 0;
    std::atomic<int> runs = 0;
    run_threads(3, [&](Group& group) {
      BenchSubject subject = bench_subject(group);
      const auto right = subject.run;
      subject.run = [&](const BenchOperation& which, const BenchVectors& vectors) {
        ++runs;
        right(which, vectors);
        // One bit of the last element, on the root, which has an output in every operation.
        if (group.rank() == 0) {
          static_cast<std::uint8_t*>(vectors.output.data)[vectors.output.bytes() - 1] ^= 1;
        }
      };
      const BenchCase one = make_bench_case(operation, DType::kI32, 5000, subject);
      std::vector<std::byte> memory = memory_for(one);
      try {
        measure(subject, one, memory, kQuick);
      } catch (const Error& error) {
        const std::string what = error.what();
        EXPECT_NE(what.find("wrong result"), std::string::npos) << what;
        EXPECT_NE(what.find(group.rank() == 0 ? "element" : "another rank"), std::string::npos)
            << what;
        ++refused;
      }
    });
    EXPECT_EQ(refused, 3) << operation.name;
    EXPECT_EQ(runs, 3) << operation.name;
  }
}

// An operation that does nothing leaves what no result has.
TEST(CommBench, NoResultIsAWrongResult) {
  run_threads(2, [](Group& group) {
    BenchSubject subject = bench_subject(group);
    subject.run = [](const BenchOperation&, const BenchVectors&) {};
    for (const BenchOperation& operation : bench_operations()) {
      if (operation.op == BenchOp::kBarrier) continue;
      const BenchCase one = make_bench_case(operation, DType::kF32, 5000, subject);
      std::vector<std::byte> memory = memory_for(one);
      EXPECT_THROW(measure(subject, one, memory, kQuick), Error) << operation.name;
    }
  });
}

TEST(CommBench, RowsOfAGroup) {
  for (const int n : {1, 2}) {
    run_threads(n, [n](Group& group) {
      std::vector<CommBenchRow> rows;
      bench_comm(
          group,
          {.operations = {}, .bytes = {4, 8, 4096}, .timing = kQuick, .limit_array_bytes = 1 << 20},
          [&](const CommBenchRow& row) { rows.push_back(row); });
      std::map<std::string, int> by_operation;
      std::map<std::string, int> by_memory;
      for (const CommBenchRow& row : rows) {
        if (row.memory == "heap") ++by_operation[row.op];
        ++by_memory[row.memory];
        EXPECT_EQ(row.ranks, n);
        EXPECT_EQ(row.engine, n == 1 ? "self" : "shm");
        EXPECT_LE(row.us.p10, row.us.median);
        EXPECT_LE(row.us.median, row.us.p90);
        EXPECT_GT(row.us.median, 0);
        EXPECT_EQ(std::isfinite(row.share_of_limit), n > 1 && row.op != "barrier") << row.op;
      }
      EXPECT_EQ(by_operation.size(), bench_operations().size());
      EXPECT_EQ(by_operation["barrier"], 1);
      EXPECT_EQ(by_memory["shared"], n == 1 ? 0 : by_memory["heap"]);
      EXPECT_EQ(by_operation["all_reduce"], 3);
      EXPECT_EQ(by_operation["all_gather"], n == 1 ? 3 : 2) << "4 bytes are 8 between two ranks";
    });
  }
}

TEST(CommBench, GlooIsHeldAgainstTheLink) {
  run_threads(
      3,
      [](Group& group) {
        bench_comm(group,
                   {.operations = {"all_gather", "barrier"}, .bytes = {4096}, .timing = kQuick},
                   [](const CommBenchRow& row) {
                     EXPECT_EQ(row.memory, "heap");
                     EXPECT_EQ(std::isfinite(row.share_of_limit), row.op != "barrier");
                   });
      },
      "gloo");
  EXPECT_EQ(own_route_address("127.0.0.1"), "127.0.0.1");
  EXPECT_THROW(own_route_address("no such host"), ConfigError);
}

}  // namespace
}  // namespace trireme::testing

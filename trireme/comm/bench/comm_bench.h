// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// `trireme bench comm` on one group: every operation at every size, from every kind of memory.
//
//   bench_comm(*world, {.operations = {"all_reduce"}, .bytes = {4096}},
//              [](const CommBenchRow& row) { fmt::print("{}\n", to_json(row)); });
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/dtype.h"
#include "trireme/comm/bench/runner.h"
#include "trireme/comm/group.h"

namespace trireme {

// What is measured of each subject.
struct CommBenchOptions {
  std::vector<std::string> operations = {};  // empty: all
  std::vector<std::int64_t> bytes = {};      // of the whole vector, see operations.h
  DType dtype = DType::kF32;
  // "heap", "shared" (Group::allocate_shared). Empty: both where the engine makes a difference.
  std::vector<std::string> memory = {};
  BenchTiming timing = {};
  // Of each rank's array for the memory's rate; 0: as memory_limit.h says.
  std::int64_t limit_array_bytes = 0;
  // Where the other ranks reach this one, for the link's rate.
  std::string own_address = "127.0.0.1";

  // Throws ConfigError: names that are none, sizes or repetitions that cannot be.
  void validate() const;
};

struct CommBenchRow {
  std::string op;
  std::string engine;
  std::string memory;
  int ranks = 0;
  DType dtype = DType::kF32;
  std::int64_t bytes = 0;
  Spread us;  // of one operation
  double bus_gb_per_s = 0;
  // The time that the bytes that must move would take at the limit's rate, over the median: through
  // memory those of memory_factor, over a link those of bus_factor. NaN where no limit was measured
  // or nothing moves.
  double share_of_limit = 0;
};

// What the machine carries at most; NaN: not measured. One of them holds for a subject.
struct BenchLimit {
  double memory_bytes_per_s = std::numeric_limits<double>::quiet_NaN();  // all ranks together
  double link_bytes_per_s = std::numeric_limits<double>::quiet_NaN();    // each rank, each way
};

// A subject as the rows call it, and what it is held against.
struct BenchSource {
  std::string engine;
  std::string memory;
  BenchLimit limit;
  // The memory of this rank for its vectors, kept for all cases.
  std::function<std::span<std::byte>(std::size_t bytes)> allocate;
};

using ReportRow = std::function<void(const CommBenchRow&)>;

// Collective; every rank has the same rows, in the same order. Throws Error for a wrong result and
// what the subject throws.
void bench_subject_cases(const BenchSubject& subject, const BenchSource& source,
                         const CommBenchOptions& options, const ReportRow& report);

// The same for a group, from each kind of memory. The limit is the memory's for shm
// (memory_limit.h) and the link's for engines over the network (link_limit.h); where part of the
// ranks share hosts there is none. Throws ConfigError besides.
void bench_comm(Group& group, const CommBenchOptions& options, const ReportRow& report);

// Bytes of vectors that one rank needs for the largest case.
double bench_comm_vector_bytes(const CommBenchOptions& options);

// One line, without its end.
std::string to_json(const CommBenchRow& row);
std::string table_header();
std::string to_table(const CommBenchRow& row);

// "Intel(R) Xeon(R) Processor, 2 cores, commit ff0f7e7, Release".
std::string bench_machine();

// The dtype of that name. Throws ConfigError with the names that there are.
DType parse_dtype(std::string_view name);

}  // namespace trireme

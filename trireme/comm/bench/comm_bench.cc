// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/comm_bench.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory>
#include <span>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/bench/link_limit.h"
#include "trireme/comm/bench/memory_limit.h"
#include "trireme/comm/bench/sizes.h"

namespace trireme {
namespace {

constexpr std::size_t kLine = 64;

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// What one kind of memory gives out, alive as long as it.
class BenchMemory {
 public:
  BenchMemory(Group& group, const std::string& kind) : group_(group), shared_(kind == "shared") {}
  std::span<std::byte> allocate(std::size_t bytes) {
    if (shared_) {
      shared_memory_ = group_.allocate_shared(bytes);
      return {static_cast<std::byte*>(shared_memory_.data()), bytes};
    }
    heap_.reset(static_cast<std::byte*>(std::aligned_alloc(kLine, (bytes / kLine + 1) * kLine)));
    if (!heap_) throw_error<Error>("no memory for vectors of {} bytes", bytes);
    return {heap_.get(), bytes};
  }

 private:
  Group& group_;
  bool shared_;
  SharedBuffer shared_memory_;
  std::unique_ptr<std::byte, Free> heap_;
};

std::vector<const BenchOperation*> operations_of(const CommBenchOptions& options) {
  std::vector<const BenchOperation*> result;
  for (const std::string& name : options.operations) result.push_back(&find_bench_operation(name));
  if (!result.empty()) return result;
  for (const BenchOperation& operation : bench_operations()) result.push_back(&operation);
  return result;
}

// The cases in the order of the table. A barrier has one size.
std::vector<BenchCase> cases_of(const CommBenchOptions& options, const BenchSubject& subject) {
  std::vector<BenchCase> cases;
  for (const BenchOperation* operation : operations_of(options)) {
    const std::size_t first = cases.size();
    for (const std::int64_t bytes : options.bytes) {
      const BenchCase one = make_bench_case(*operation, options.dtype, bytes, subject);
      // Small sizes may round up to the same one.
      if (cases.size() == first || cases.back().bytes() != one.bytes()) cases.push_back(one);
    }
  }
  return cases;
}

std::size_t vector_bytes(const std::vector<BenchCase>& cases) {
  std::size_t most = 1;
  for (const BenchCase& one : cases) {
    most = std::max(most, bench_vector_bytes(*one.operation, one.shape, one.dtype));
  }
  return most;
}

BenchLimit limit_of(Group& group, const BenchSubject& subject, const CommBenchOptions& options) {
  BenchLimit limit;
  if (group.engine() == "shm") {
    limit.memory_bytes_per_s = measure_memory_bytes_per_s(
        subject, options.limit_array_bytes > 0 ? options.limit_array_bytes
                                               : memory_limit_array_bytes(subject.size));
  } else if (subject.size > 1 && group.engine().find("shm") == std::string_view::npos) {
    limit.link_bytes_per_s = measure_link_bytes_per_s(group, options.own_address);
  }
  if (subject.rank == 0 && std::isfinite(limit.memory_bytes_per_s)) {
    log_info("memory: {:.1f} GB/s read and written by {} ranks together",
             limit.memory_bytes_per_s / 1e9, subject.size);
  }
  if (subject.rank == 0 && std::isfinite(limit.link_bytes_per_s)) {
    log_info("link: {:.2f} GB/s each way between each of {} ranks and the next",
             limit.link_bytes_per_s / 1e9, subject.size);
  }
  return limit;
}

double share_of_limit(const BenchCase& measured, const BenchResult& result,
                      const BenchLimit& limit) {
  const BenchOperation& operation = *measured.operation;
  const int ranks = measured.shape.ranks;
  const bool by_link = std::isfinite(limit.link_bytes_per_s);
  const double factor = by_link ? operation.bus_factor(ranks) : operation.memory_factor(ranks);
  const double rate = by_link ? limit.link_bytes_per_s : limit.memory_bytes_per_s;
  if (factor == 0 || ranks == 1) return std::numeric_limits<double>::quiet_NaN();
  return factor * static_cast<double>(measured.bytes()) / rate / (result.us.median * 1e-6);
}

}  // namespace

void CommBenchOptions::validate() const {
  operations_of(*this);
  if (bytes.empty()) throw_error<ConfigError>("no size to measure");
  for (const std::string& kind : memory) {
    if (kind != "heap" && kind != "shared") {
      throw_error<ConfigError>("there is no memory '{}'; use heap or shared", kind);
    }
  }
  if (timing.max_samples < BenchTiming::kMinSamples) {
    throw_error<ConfigError>("{} repetitions are too few for a spread; give {} or more",
                             timing.max_samples, BenchTiming::kMinSamples);
  }
  if (!(timing.seconds > 0) || timing.seconds > 3600) {
    throw_error<ConfigError>("{} seconds for a case; give more than 0 and at most 3600",
                             timing.seconds);
  }
}

void bench_subject_cases(const BenchSubject& subject, const BenchSource& source,
                         const CommBenchOptions& options, const ReportRow& report) {
  const std::vector<BenchCase> cases = cases_of(options, subject);
  const std::span<std::byte> memory = source.allocate(vector_bytes(cases));
  for (const BenchCase& one : cases) {
    const BenchResult result = measure(subject, one, memory, options.timing);
    report({.op = std::string(one.operation->name),
            .engine = source.engine,
            .memory = source.memory,
            .ranks = subject.size,
            .dtype = one.dtype,
            .bytes = one.bytes(),
            .us = result.us,
            .bus_gb_per_s = result.bus_gb_per_s(one),
            .share_of_limit = share_of_limit(one, result, source.limit)});
  }
}

void bench_comm(Group& group, const CommBenchOptions& options, const ReportRow& report) {
  options.validate();
  const BenchSubject subject = bench_subject(group);
  const BenchLimit limit = limit_of(group, subject, options);
  std::vector<std::string> kinds = options.memory;
  if (kinds.empty()) kinds = {"heap"};
  if (options.memory.empty() && group.engine().starts_with("shm")) kinds.push_back("shared");
  for (const std::string& kind : kinds) {
    BenchMemory memory(group, kind);
    bench_subject_cases(
        subject,
        {.engine = std::string(group.engine()),
         .memory = kind,
         .limit = limit,
         .allocate = [&memory](std::size_t bytes) { return memory.allocate(bytes); }},
        options, report);
  }
}

double bench_comm_vector_bytes(const CommBenchOptions& options) {
  // Input and output, both whole.
  return 2.0 * static_cast<double>(*std::max_element(options.bytes.begin(), options.bytes.end()));
}

}  // namespace trireme

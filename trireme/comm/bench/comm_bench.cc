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
#include "trireme/comm/bench/memory_limit.h"
#include "trireme/comm/bench/sizes.h"

namespace trireme {
namespace {

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// As large as the largest vectors of this rank; touched by the first verification.
class HeapMemory {
 public:
  explicit HeapMemory(std::size_t bytes) : bytes_((bytes + kLine - 1) / kLine * kLine) {
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kLine, bytes_)));
    if (!memory_) throw_error<Error>("no memory for vectors of {} bytes", bytes_);
  }
  std::span<std::byte> span() const { return {memory_.get(), bytes_}; }

 private:
  static constexpr std::size_t kLine = 64;
  std::size_t bytes_;
  std::unique_ptr<std::byte, Free> memory_;
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

// Of the memory, in bytes per second; NaN where the engine does not carry bytes through it.
double limit_of(const Group& group, const BenchSubject& subject, const CommBenchOptions& options) {
  if (group.engine() != "shm") return std::numeric_limits<double>::quiet_NaN();
  const std::int64_t bytes = options.limit_array_bytes > 0 ? options.limit_array_bytes
                                                           : memory_limit_array_bytes(subject.size);
  return measure_memory_bytes_per_s(subject, bytes);
}

double share_of_limit(const BenchCase& measured, const BenchResult& result,
                      double limit_bytes_per_s) {
  const BenchShape& shape = measured.shape;
  const double bytes = static_cast<double>(measured.bytes());
  const double moved = measured.operation->memory_factor(shape.ranks) * bytes;
  if (moved == 0 || shape.ranks == 1) return std::numeric_limits<double>::quiet_NaN();
  return moved / limit_bytes_per_s / (result.us.median * 1e-6);
}

}  // namespace

void CommBenchOptions::validate() const {
  operations_of(*this);
  if (bytes.empty()) throw_error<ConfigError>("no size to measure");
  for (const std::string& kind : memory) {
    if (kind != "heap") throw_error<ConfigError>("there is no memory '{}'; use heap", kind);
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

void bench_comm(Group& group, const CommBenchOptions& options,
                const std::function<void(const CommBenchRow&)>& report) {
  options.validate();
  const BenchSubject subject = bench_subject(group);
  const std::vector<BenchCase> cases = cases_of(options, subject);
  const double limit = limit_of(group, subject, options);
  for (const std::string& kind : options.memory) {
    const HeapMemory memory(vector_bytes(cases));
    for (const BenchCase& one : cases) {
      const BenchResult result = measure(subject, one, memory.span(), options.timing);
      report({.op = std::string(one.operation->name),
              .engine = std::string(group.engine()),
              .memory = kind,
              .ranks = subject.size,
              .dtype = one.dtype,
              .bytes = one.bytes(),
              .us = result.us,
              .bus_gb_per_s = result.bus_gb_per_s(one),
              .share_of_limit = share_of_limit(one, result, limit)});
    }
  }
}

double bench_comm_vector_bytes(const CommBenchOptions& options) {
  // Input and output, both whole.
  return 2.0 * static_cast<double>(*std::max_element(options.bytes.begin(), options.bytes.end()));
}

}  // namespace trireme

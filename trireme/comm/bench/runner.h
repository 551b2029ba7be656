// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Measures one operation of one subject: Trireme's Group here, other libraries in bench/peers. The
// same checks, the same agreement on how often, the same statistics for all of them.
//
//   verify   the pattern in, every element of the output compared; wrong on one rank is an error on
//            all
//   warm up  until the time of one operation is known; the slowest rank's counts
//   agree    on the number of operations per sample (so many that a sample takes 200 us: reading
//            the clock and leaving a barrier at different times weigh little) and on the number of
//            samples that fit the budget
//   time     per sample: barrier, clock, operations, clock. A sample's time is the slowest rank's,
//            taken by gathering all of them after the last sample.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "trireme/comm/bench/operations.h"
#include "trireme/comm/bench/statistics.h"
#include "trireme/comm/bench/vectors.h"

namespace trireme {

class Group;

// Ranks that can be measured. All functions are collective.
struct BenchSubject {
  int rank = 0;
  int size = 1;
  std::function<void()> barrier;
  // Each element becomes its maximum over the ranks.
  std::function<void(std::span<double>)> max_over_ranks;
  std::function<void(const BenchOperation&, const BenchVectors&)> run;
  // The output of reduce_scatter takes the place of the input's beginning.
  bool reduce_scatter_in_place = false;
};

// The collectives of a group, which must outlive it.
BenchSubject bench_subject(Group& group);

struct BenchTiming {
  int max_samples = 101;
  double seconds = 0.3;  // for the samples of one case; at least kMinSamples are taken
  static constexpr int kMinSamples = 5;
};

struct BenchCase {
  const BenchOperation* operation = nullptr;
  DType dtype = DType::kF32;
  BenchShape shape;

  std::int64_t bytes() const;  // of the whole vector
};

// The case of at least the given bytes: rounded up to whole elements, and to equal blocks of them
// where the operation works on blocks.
BenchCase make_bench_case(const BenchOperation& operation, DType dtype, std::int64_t bytes,
                          const BenchSubject& subject);

struct BenchResult {
  Spread us;  // of one operation
  int samples = 0;
  std::int64_t operations_per_sample = 1;

  double bus_gb_per_s(const BenchCase& measured) const;  // by the median
};

// Collective. memory has bench_vector_bytes(). Throws Error where a result is wrong, on all ranks,
// and what the subject throws.
BenchResult measure(const BenchSubject& subject, const BenchCase& measured,
                    std::span<std::byte> memory, const BenchTiming& timing);

// Only the first step of it.
void verify(const BenchSubject& subject, const BenchCase& measured, const BenchVectors& vectors);

}  // namespace trireme

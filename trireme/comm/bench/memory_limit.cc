// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/memory_limit.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/comm/codec/vector_clones.h"

namespace trireme {
namespace {

constexpr int kPasses = 9;

TRIREME_VECTOR_CLONES void add_one(float* data, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) data[i] += 1.0F;
}

}  // namespace

std::int64_t memory_limit_array_bytes(int ranks) {
  constexpr std::int64_t kLeastBytes = std::int64_t{256} << 20;
  const std::int64_t cache_bytes = std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE));
  const std::int64_t free_bytes =
      std::int64_t{sysconf(_SC_AVPHYS_PAGES)} * std::int64_t{sysconf(_SC_PAGESIZE)};
  const std::int64_t wanted = std::max(kLeastBytes, 2 * cache_bytes);
  const std::int64_t all = std::min(wanted, std::max(kLeastBytes / 16, free_bytes / 8));
  return all / ranks;
}

double measure_memory_bytes_per_s(const BenchSubject& subject, std::int64_t array_bytes) {
  // The ranks may see different amounts of free memory.
  double smallest = -static_cast<double>(array_bytes);
  subject.max_over_ranks({&smallest, 1});
  std::vector<float> data(static_cast<std::size_t>(-smallest) / sizeof(float), 0.0F);
  std::array<double, kPasses> seconds{};
  for (double& one : seconds) {
    subject.barrier();
    const auto start = std::chrono::steady_clock::now();
    add_one(data.data(), data.size());
    one = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  TRIREME_CHECK_EQ(data.back(), static_cast<float>(kPasses), "passes over the array");
  subject.max_over_ranks(seconds);
  const double best = *std::min_element(seconds.begin(), seconds.end());
  return 2.0 * sizeof(float) * static_cast<double>(data.size()) * subject.size / best;
}

}  // namespace trireme

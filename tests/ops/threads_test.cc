// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/threads.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <sched.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "trireme/base/error.h"

namespace trireme {
namespace {

// at::parallel_for is silently serial in files compiled without OpenMP.
TEST(Threads, SetsEveryPool) {
  const int before = at::get_num_threads();
  for (const int threads : {3, 1, 2}) {
    set_compute_threads({.threads = threads});
    EXPECT_EQ(at::get_num_threads(), threads);
    EXPECT_EQ(omp_get_max_threads(), threads);
    std::atomic<int> tasks{0};
    at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) { ++tasks; });
    EXPECT_EQ(tasks.load(), threads);
  }
  EXPECT_THROW(set_compute_threads({.threads = 0}), InternalError);
  set_compute_threads({.threads = before});
}

TEST(Threads, FingerprintNamesWhatBitsDependOn) {
  EXPECT_THAT(numerics_fingerprint(), ::testing::HasSubstr("torch "));
  EXPECT_THAT(numerics_fingerprint(), ::testing::HasSubstr("oneDNN "));
  EXPECT_THAT(numerics_fingerprint(), ::testing::HasSubstr(blas_in_use()));
  const int before = at::get_num_threads();
  const std::string fingerprint = numerics_fingerprint();
  set_compute_threads({.threads = before + 1});
  EXPECT_EQ(numerics_fingerprint(), fingerprint) << "no bit depends on the threads";
  set_compute_threads({.threads = before});
}

TEST(Threads, VectorUnitsAreOneOfTheKnown) {
  EXPECT_THAT(vector_units(),
              ::testing::AnyOf("AVX512_BF16", "AVX512", "AVX2", "NEON", "baseline"));
}

}  // namespace
}  // namespace trireme

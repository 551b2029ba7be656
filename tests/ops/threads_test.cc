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

#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"
#include "trireme/ops/cpu_quota.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// A folder in which a test makes the files of control groups.
class CpuQuota : public ::testing::Test {
 protected:
  void file(const std::string& path, const std::string& text) {
    fs::create_directories((folder_ / path).parent_path());
    std::ofstream(folder_ / path) << text << "\n";
  }
  std::optional<double> quota(const std::string& membership) {
    return detail::cpu_quota(membership, folder_.path().string());
  }

  testing::TemporaryFolder folder_;
};

TEST_F(CpuQuota, NoneWithoutFiles) {
  EXPECT_EQ(quota(""), std::nullopt);
  EXPECT_EQ(quota("0::/\n"), std::nullopt);
  EXPECT_EQ(quota("nonsense\n3:cpu\n0::/job\n"), std::nullopt);
}

TEST_F(CpuQuota, ReadsVersion2) {
  file("job/cpu.max", "150000 100000");
  EXPECT_EQ(quota("0::/job\n"), 1.5);
  file("job/cpu.max", "max 100000");
  EXPECT_EQ(quota("0::/job\n"), std::nullopt);
}

TEST_F(CpuQuota, ReadsVersion1) {
  file("cpu/job/cpu.cfs_quota_us", "300000");
  file("cpu/job/cpu.cfs_period_us", "100000");
  EXPECT_EQ(quota("4:cpuset:/other\n3:cpu,cpuacct:/job\n"), 3.0);
  EXPECT_EQ(quota("4:cpuset:/job\n"), std::nullopt);
  file("cpu/job/cpu.cfs_quota_us", "-1");
  EXPECT_EQ(quota("3:cpu,cpuacct:/job\n"), std::nullopt);
}

TEST_F(CpuQuota, TakesTheSmallestOnTheWayUp) {
  file("cpu.max", "800000 100000");
  file("a/cpu.max", "200000 100000");
  file("a/b/cpu.max", "400000 100000");
  EXPECT_EQ(quota("0::/a/b/not_mounted_here\n"), 2.0);
  EXPECT_EQ(quota("0::/\n"), 8.0);
}

TEST(Threads, AvailableCoresFollowTheAffinityMask) {
  const int all = available_cores();
  EXPECT_GE(all, 1);
  int bound = 0;
  std::thread([&] {
    cpu_set_t before;
    ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
    int first = 0;
    while (!CPU_ISSET(first, &before)) {
      ++first;
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    bound = available_cores();
  }).join();
  EXPECT_EQ(bound, 1);
}

// at::parallel_for is silently serial in files compiled without OpenMP.
TEST(Threads, SetsEveryPool) {
  const int before = at::get_num_threads();
  for (const int threads : {3, 1, 2}) {
    set_compute_threads(threads);
    EXPECT_EQ(at::get_num_threads(), threads);
    EXPECT_EQ(omp_get_max_threads(), threads);
    std::atomic<int> tasks{0};
    at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) { ++tasks; });
    EXPECT_EQ(tasks.load(), threads);
  }
  EXPECT_THROW(set_compute_threads(0), InternalError);
  set_compute_threads(before);
}

TEST(Threads, FingerprintNamesWhatBitsDependOn) {
  EXPECT_THAT(numerics_fingerprint(), ::testing::HasSubstr("torch "));
  EXPECT_THAT(numerics_fingerprint(), ::testing::HasSubstr("oneDNN "));
  EXPECT_THAT(numerics_fingerprint(), ::testing::HasSubstr(blas_in_use()));
  const int before = at::get_num_threads();
  const std::string fingerprint = numerics_fingerprint();
  set_compute_threads(before + 1);
  EXPECT_NE(numerics_fingerprint(), fingerprint);
  set_compute_threads(before);
  EXPECT_EQ(numerics_fingerprint(), fingerprint);
}

TEST(Threads, VectorUnitsAreOneOfTheKnown) {
  EXPECT_THAT(vector_units(),
              ::testing::AnyOf("AVX512_BF16", "AVX512", "AVX2", "NEON", "baseline"));
}

}  // namespace
}  // namespace trireme

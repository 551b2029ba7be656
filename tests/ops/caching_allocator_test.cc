// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/memory/caching_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/types.h>

#include <cstdint>
#include <thread>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/ops/memory/memory_ledger.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;
using enum MemoryCategory;

struct CachingAllocatorTest : ::testing::Test {
  CachingAllocatorTest() { install_caching_allocator(); }
};

std::int64_t minor_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

std::int64_t current_bytes(MemoryCategory category) {
  return process_memory().report().current[category];
}

TEST_F(CachingAllocatorTest, InstallsOnce) {
  const c10::Allocator* const installed = c10::GetCPUAllocator();
  install_caching_allocator();
  EXPECT_EQ(c10::GetCPUAllocator(), installed);
  EXPECT_NE(installed, c10::GetDefaultCPUAllocator());
}

TEST_F(CachingAllocatorTest, TensorsAreEnteredUnderTheScopeTheyWereMadeIn) {
  const std::int64_t before = current_bytes(kOptimizer);
  at::Tensor moment;
  {
    const MemoryScope scope(kOptimizer);
    moment = torch::zeros({1000, 3});
  }
  EXPECT_EQ(current_bytes(kOptimizer), before + 12000);
  at::Tensor view = moment.narrow(0, 10, 20);
  moment.reset();
  EXPECT_EQ(current_bytes(kOptimizer), before + 12000) << "the view holds the memory";
  std::thread([view = std::move(view)]() mutable { view.reset(); }).join();
  EXPECT_EQ(current_bytes(kOptimizer), before);
}

TEST_F(CachingAllocatorTest, EmptyTensorsTakeNothing) {
  const std::int64_t before = caching_allocator_stats().in_use_bytes;
  const at::Tensor empty = torch::empty({0, 5});
  EXPECT_EQ(empty.numel(), 0);
  EXPECT_EQ(caching_allocator_stats().in_use_bytes, before);
}

TEST_F(CachingAllocatorTest, TheRawInterfaceWorks) {
  const std::int64_t before = caching_allocator_stats().in_use_bytes;
  c10::Allocator* const allocator = c10::GetCPUAllocator();
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{1} << 23}) {
    void* const memory = allocator->raw_allocate(bytes);
    EXPECT_EQ(caching_allocator_stats().in_use_bytes, before + static_cast<std::int64_t>(bytes));
    if (bytes > 0) static_cast<char*>(memory)[bytes - 1] = 1;
    allocator->raw_deallocate(memory);
    EXPECT_EQ(caching_allocator_stats().in_use_bytes, before);
  }
}

TEST_F(CachingAllocatorTest, ATensorThatCannotBeIsAnErrorInOneLine) {
  EXPECT_THAT(
      [] { torch::empty({std::int64_t{1} << 46}); },
      ThrowsMessage<Error>(AllOf(HasSubstr("no 281474976710656 bytes"), Not(HasSubstr("\n")))));
}

// Forward and backward of two layers, six tensors of 6 MiB each way.
double small_step(const at::Tensor& x, const at::Tensor& weight) {
  at::Tensor h = torch::tanh(torch::matmul(x, weight));
  h = torch::relu(torch::matmul(h, weight)) + x;
  const at::Tensor loss = (h * h).mean();
  loss.backward();
  weight.mutable_grad().zero_();
  return loss.item<double>();
}

TEST_F(CachingAllocatorTest, StepsAfterTheSecondTouchNoFreshPage) {
  const at::Tensor x = torch::arange(24576.0 * 64.0, at::kFloat).view({24576, 64}).remainder(7.0);
  const at::Tensor weight = torch::full({64, 64}, 0.01F).requires_grad_(true);
  const double first = small_step(x, weight);
  small_step(x, weight);
  const std::int64_t fetched = caching_allocator_stats().fetched_bytes;
  EXPECT_GT(fetched, std::int64_t{30} << 20);
  const std::int64_t faults = minor_faults();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(small_step(x, weight), first);
  EXPECT_EQ(caching_allocator_stats().fetched_bytes, fetched);
  // A few may come from elsewhere in the process; without reuse there are 50 a step in huge pages,
  // 20,000 in small ones.
  EXPECT_LT(minor_faults() - faults, 50);
}

TEST_F(CachingAllocatorTest, ReleaseGivesBackWhatNoTensorUses) {
  torch::empty({16 << 20});
  const std::int64_t mapped = caching_allocator_stats().mapped_bytes;
  release_cached_memory();
  EXPECT_LE(caching_allocator_stats().mapped_bytes, mapped - (std::int64_t{64} << 20));
}

}  // namespace
}  // namespace trireme

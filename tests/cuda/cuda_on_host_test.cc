// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The host double of CUDA notices what it promises to notice.

#include "tests/fakes/cuda_on_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/ops/cuda/device-inl.cuh"

namespace trireme::testing {
namespace {

using cuda_on_host::host;
using cuda_on_host::Order;
using ops::cuda::Stream;
using ops::cuda::detail::launch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

__global__ void reverse_through_shared_memory(int* values, bool with_barrier) {
  __shared__ int shared[64];
  shared[threadIdx.x] = values[threadIdx.x];
  if (with_barrier) __syncthreads();
  values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

std::vector<int> reversed(Order order, bool with_barrier) {
  std::vector<int> values(64);
  for (int i = 0; i < 64; ++i) values[static_cast<std::size_t>(i)] = 100 + i;
  launch("clear", reverse_through_shared_memory, {1, 64}, Stream{}, std::vector<int>(64).data(),
         true);
  host = {.order = order};
  launch("reverse", reverse_through_shared_memory, {1, 64}, Stream{}, values.data(), with_barrier);
  return values;
}

TEST(CudaOnHost, ThreadsMeetAtBarriers) {
  for (const Order order : {Order::kAscending, Order::kDescending}) {
    const std::vector<int> values = reversed(order, true);
    for (int i = 0; i < 64; ++i) EXPECT_EQ(values[static_cast<std::size_t>(i)], 163 - i);
  }
}

TEST(CudaOnHost, RaceShowsInTheOrder) {
  EXPECT_NE(reversed(Order::kAscending, false), reversed(Order::kDescending, false));
}

__global__ void barrier_but_for_one(unsigned one) {
  if (threadIdx.x != one) __syncthreads();
}
__global__ void barriers_at_two_lines(unsigned one) {
  if (threadIdx.x < one) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void part_of_a_warp(unsigned one) {
  if (threadIdx.x < one) __syncwarp();
}
__global__ void shuffle_in_part(unsigned mask) { __shfl_xor_sync(mask, 1.0F, 1); }
__global__ void nothing(unsigned /*unused*/) {}

TEST(CudaOnHost, ThreadsThatNeverMeetAreFound) {
  const auto run = [](auto kernel, unsigned argument, int threads = 96) {
    return [=] { launch("test", kernel, {2, threads}, Stream{}, argument); };
  };
  const auto refused = [](const char* why) {
    return ThrowsMessage<std::logic_error>(HasSubstr(why));
  };
  host = {};
  EXPECT_THAT(run(barrier_but_for_one, 70), refused("thread 70 has ended"));
  EXPECT_THAT(run(barrier_but_for_one, 0), refused("thread 0 has ended, thread 1 waits at"));
  EXPECT_THAT(run(barriers_at_two_lines, 64), refused("thread 64 waits at"));
  EXPECT_THAT(run(part_of_a_warp, 5), refused("thread 5 has ended"));
  EXPECT_THAT(run(shuffle_in_part, 0xFFFFU), refused("part of a warp"));
  EXPECT_THAT(run(nothing, 0, 33), refused("33 x 1 threads"));
  EXPECT_NO_THROW(run(part_of_a_warp, 32)());
  EXPECT_NO_THROW(run(barrier_but_for_one, 96)());
}

__global__ void number_of_blocks(std::vector<unsigned>* seen) {
  if (threadIdx.x == 0) seen->push_back(blockIdx.x * 10 + gridDim.x);
}

TEST(Launch, TakesGridsAsLargeAsTheDeviceAllows) {
  std::vector<unsigned> seen;
  host = {.most_blocks = 3};
  launch("test", number_of_blocks, {std::int64_t{1} << 40, 32}, Stream{}, &seen);
  EXPECT_THAT(seen, ElementsAre(3, 13, 23));
  EXPECT_EQ(host.largest_grid, 1U << 24);
}

TEST(Launch, OfNothingIsNone) {
  host = {};
  launch("test", nothing, {0, 32}, Stream{}, 0U);
  EXPECT_EQ(host.launches, 0);
}

TEST(Launch, SaysWhichKernelWasRefused) {
  int stream = 0;
  host = {.refuse_with = 9};
  EXPECT_THAT(([&] {
                launch("rotate", nothing, {1, 32}, Stream{&stream}, 0U);
              }),
              ThrowsMessage<Error>(HasSubstr("CUDA kernel rotate was not started: as the test")));
  EXPECT_EQ(host.last_stream, &stream);
  EXPECT_NO_THROW(launch("rotate", nothing, {1, 32}, Stream{}, 0U));
}

}  // namespace
}  // namespace trireme::testing

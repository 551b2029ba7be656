// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The optimizer's loops, a thread per vector. f32 operations are named one by one: correctly
// rounded, none contracted, denormal numbers flushed to zero, as the CPU has them in a step
// (ops::FlushDenormals).

#include "trireme/ops/cuda/device-inl.cuh"
#include "trireme/optim/cuda/kernels.h"

namespace trireme::optim::cuda {
namespace {

using namespace ops::cuda::detail;
using detail::UpdateExtras;
using detail::AdamWScalars;

#ifdef __CUDACC__
// Assembly, because the compiler's own functions flush or not as its options say.
__device__ inline float multiply(float a, float b) {
  float result;
  asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
__device__ inline float add(float a, float b) {
  float result;
  asm("add.rn.ftz.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
__device__ inline float divide(float a, float b) {
  float result;
  asm("div.rn.ftz.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
__device__ inline float square_root(float a) {
  float result;
  asm("sqrt.rn.ftz.f32 %0, %1;" : "=f"(result) : "f"(a));
  return result;
}
#else
using cuda_on_host::add;
using cuda_on_host::divide;
using cuda_on_host::multiply;
using cuda_on_host::square_root;
#endif

__device__ float update_one(const AdamWScalars& s, float keep, float weight, float gradient,
                            float& first, float& second) {
  const float g = multiply(gradient, s.gradient_scale);
  first = add(multiply(s.beta1, first), multiply(s.one_minus_beta1, g));
  second = add(multiply(s.beta2, second), multiply(s.one_minus_beta2, multiply(g, g)));
  const float denominator =
      add(multiply(square_root(second), s.inverse_sqrt_correction2), s.epsilon);
  return add(multiply(weight, keep), -multiply(s.step_size, divide(first, denominator)));
}

// 32 bits that look random, of a number and a key (the finaliser of MurmurHash3, A. Appleby).
__device__ inline std::uint32_t scrambled(std::uint32_t number, std::uint32_t key) {
  std::uint32_t h = number ^ key;
  h = (h ^ (h >> 16)) * 0x85EBCA6BU;
  h = (h ^ (h >> 13)) * 0xC2B2AE35U;
  return h ^ (h >> 16);
}

// Up with the probability of the part that is cut off: the mean of the results is the value.
__device__ inline Bf16 rounded_stochastically(float value, std::uint32_t random) {
  const std::uint32_t bits = __float_as_uint(value);
  Bf16 result;
  narrow(value, result);
  if ((bits & 0x7F800000U) != 0x7F800000U) {
    result.bits = static_cast<std::uint16_t>((bits + (random & 0xFFFFU)) >> 16);
  }
  return result;
}

constexpr std::int64_t kCopyBytes = kVector<float> * sizeof(Bf16);

template <int kWidth>
__device__ void store_copy(const float (&weights)[kWidth], const UpdateExtras& extras,
                           std::int64_t at) {
  Pack<Bf16, kWidth> copy;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (extras.stochastic) {
      const auto number =
          static_cast<std::uint32_t>(extras.first_element + static_cast<std::uint64_t>(at + i));
      copy.values[i] = rounded_stochastically(weights[i], scrambled(number, extras.random_key));
    } else {
      narrow(weights[i], copy.values[i]);
    }
  }
  store(copy, reinterpret_cast<Bf16*>(extras.copy) + at);
}

// How many of the bounds are at or before an element: it is inside a range when that is odd.
__device__ inline std::int64_t bounds_before(const AdamWBuffers& b, std::int64_t element) {
  std::int64_t low = 0, high = b.num_bounds;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (b.bounds[middle] <= element) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <int kWidth>
__device__ void update_vector(const AdamWScalars& s, float keep, const AdamWBuffers& b,
                              const UpdateExtras& extras, std::int64_t at) {
  float weights[kWidth], gradients[kWidth], first[kWidth], second[kWidth];
  load<kWidth>(b.weights + at, weights);
  load<kWidth>(b.gradients + at, gradients);
  load<kWidth>(b.first_moment + at, first);
  load<kWidth>(b.second_moment + at, second);
  std::int64_t before = bounds_before(b, at);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    while (before < b.num_bounds && b.bounds[before] <= at + i) ++before;
    weights[i] =
        update_one(s, before % 2 == 0 ? 1.0F : keep, weights[i], gradients[i], first[i], second[i]);
  }
  store<kWidth>(weights, b.weights + at);
  store<kWidth>(first, b.first_moment + at);
  store<kWidth>(second, b.second_moment + at);
  if (extras.copy != nullptr) store_copy<kWidth>(weights, extras, at);
  if (extras.clear_gradients) {
    const float zeros[kWidth] = {};
    store<kWidth>(zeros, b.gradients + at);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kFlatThreads)
    update_all(AdamWScalars s, float keep, const float* gradient_scale, AdamWBuffers b,
               UpdateExtras extras) {
  if (gradient_scale != nullptr) s.gradient_scale = multiply(s.gradient_scale, *gradient_scale);
  for_each_vector<kWidth>(b.count, [&](auto width, std::int64_t at) {
    update_vector<decltype(width)::value>(s, keep, b, extras, at);
  });
}

template <int kWidth>
__global__ void __launch_bounds__(kFlatThreads)
    round_all(std::int64_t count, const float* weights, UpdateExtras extras) {
  for_each_vector<kWidth>(count, [&](auto width, std::int64_t at) {
    constexpr int kCount = decltype(width)::value;
    float values[kCount];
    load<kCount>(weights + at, values);
    store_copy<kCount>(values, extras, at);
  });
}

// The CPU's 16 interleaved sums of a block, four neighbours in each of four threads.
constexpr int kSums = 16, kSumsEach = 4, kSumThreads = kSums / kSumsEach;
static_assert(kNormBlock % kSums == 0);

// A block of values that ends early leaves sums as they are: 0 added to a sum of squares.
template <int kWidth>
__device__ void load_four(const float* values, std::int64_t at, std::int64_t end, float* four) {
  if (at + kSumsEach <= end) {
#pragma unroll
    for (int i = 0; i < kSumsEach; i += kWidth) load<kWidth>(values + at + i, four + i);
    return;
  }
  for (int i = 0; i < kSumsEach; ++i) four[i] = at + i < end ? values[at + i] : 0.0F;
}

template <int kWidth>
__global__ void __launch_bounds__(kFlatThreads)
    sum_squares_of_blocks(const float* values, std::int64_t count, double* of_blocks) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x / kSumThreads;
  const std::int64_t blocks = div_up(count, kNormBlock);
  const int part = threadIdx.x % kSumThreads;
  std::int64_t block = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kSumThreads;
  // A warp's threads take as many turns as its first one: its shuffles need all of them.
  for (; block - threadIdx.x % kWarp / kSumThreads < blocks; block += step) {
    const std::int64_t begin = block * kNormBlock;
    const std::int64_t end = begin + kNormBlock < count ? begin + kNormBlock : count;
    double sums[kSumsEach] = {};
#pragma unroll 4
    for (std::int64_t at = begin + part * kSumsEach; at < end; at += kSums) {
      float four[kSumsEach];
      load_four<kWidth>(values, at, end, four);
#pragma unroll
      for (int i = 0; i < kSumsEach; ++i) {
        const double value = four[i];
        sums[i] = fma(value, value, sums[i]);  // the square is exact: one rounding either way
      }
    }
#pragma unroll
    for (int threads = kSumThreads / 2; threads > 0; threads /= 2) {
#pragma unroll
      for (int i = 0; i < kSumsEach; ++i) sums[i] += __shfl_xor_sync(kAllLanes, sums[i], threads);
    }
    const double even = sums[0] + sums[2], odd = sums[1] + sums[3];
    if (part == 0 && block < blocks) of_blocks[block] = even + odd;
  }
}

}  // namespace

void adamw_update(const AdamWScalars& scalars, float keep, const float* gradient_scale,
                  const AdamWBuffers& buffers, const UpdateExtras& extras, Stream stream) {
  constexpr int kWidth = kVector<float>;
  const bool vectors =
      align(buffers.weights, buffers.gradients, buffers.first_moment, buffers.second_moment) &&
      align<kCopyBytes>(extras.copy);
  launch("adamw_update", vectors ? update_all<kWidth> : update_all<1>,
         flat_grid(buffers.count, vectors ? kWidth : 1), stream, scalars, keep, gradient_scale,
         buffers, extras);
}

void round_weights(std::int64_t count, const float* weights, const UpdateExtras& extras,
                   Stream stream) {
  constexpr int kWidth = kVector<float>;
  const bool vectors = align(weights) && align<kCopyBytes>(extras.copy);
  launch("round_weights", vectors ? round_all<kWidth> : round_all<1>,
         flat_grid(count, vectors ? kWidth : 1), stream, count, weights, extras);
}

void sums_of_squares(const float* values, std::int64_t count, double* sums, Stream stream) {
  constexpr int kWidth = kVector<float>;
  const std::int64_t threads = div_up(count, kNormBlock) * kSumThreads;
  launch("sums_of_squares",
         align(values) ? sum_squares_of_blocks<kWidth> : sum_squares_of_blocks<1>,
         {div_up(threads, kFlatThreads), kFlatThreads}, stream, values, count, sums);
}

}  // namespace trireme::optim::cuda

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// CUDA for tests without a device: a kernel's own text, compiled for the host. Include it before a
// .cu file. Blocks run one after the other; the threads of a block are fibres, which give way to
// each other where threads wait for each other.
//
// What a device would not forgive is an exception here: a barrier that some threads of the block
// (or of the warp) do not reach, or reach at another line; a shuffle of part of a warp. Races on
// shared memory show as bits that change with `order`: test in both.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

namespace cuda_on_host {

enum class Order { kAscending, kDescending };

// What tests choose and read. most_blocks: larger grids are cut to it, as the library's own limit
// would (and a kernel has to loop).
struct Host {
  Order order = Order::kAscending;
  unsigned most_blocks = 7;
  int refuse_with = 0;  // the next launch: a cudaError_t
  // What happened.
  int launches = 0;
  unsigned largest_grid = 0;  // that was asked for
  void* last_stream = nullptr;
};
inline Host host;

}  // namespace cuda_on_host

// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming): CUDA's own names.
struct dim3 {
  explicit dim3(unsigned x_ = 0, unsigned y_ = 1) : x(x_), y(y_) {}
  unsigned x, y;
};
inline dim3 blockIdx, threadIdx, blockDim, gridDim;
// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)

namespace cuda_on_host {

void run(unsigned blocks, const dim3& threads, void* stream, const std::function<void()>& kernel);

// Returns when all threads of the block, or of the warp, have come to the line.
enum class Scope { kBlock, kWarp };
void wait_for_threads(Scope scope, const char* file, int line);
// bits of the same warp's thread `lane ^ lanes`.
std::uint64_t exchange(unsigned mask, std::uint64_t bits, int lanes, const char* file, int line);

template <class Value>
Value exchange_value(unsigned mask, Value value, int lanes, const char* file, int line) {
  std::uint64_t bits = 0;
  static_assert(sizeof(Value) <= sizeof(bits));
  std::memcpy(&bits, &value, sizeof(value));
  bits = exchange(mask, bits, lanes, file, line);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// f32 operations that flush denormal operands and results to zero, on any processor.
inline float flushed(float value) {
  return std::fabs(value) < 0x1p-126F ? std::copysign(0.0F, value) : value;
}
inline float multiply(float a, float b) { return flushed(flushed(a) * flushed(b)); }
inline float add(float a, float b) { return flushed(flushed(a) + flushed(b)); }
inline float divide(float a, float b) { return flushed(flushed(a) / flushed(b)); }
inline float square_root(float a) { return flushed(std::sqrt(flushed(a))); }

}  // namespace cuda_on_host

// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming): CUDA's own names.
using cudaError_t = int;
inline constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_on_host::host.refuse_with;
  cuda_on_host::host.refuse_with = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorString(cudaError_t /*error*/) { return "as the test asked"; }

inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
// 0 beyond 2^126, as a device's is.
inline float __fdividef(float a, float b) { return std::fabs(b) > 0x1p126F ? 0.0F : a / b; }

#define __device__
#define __host__
#define __global__
#define __launch_bounds__(threads)
// Blocks run one after the other, and do not find what it held before of any use.
#define __shared__ static
#define __syncthreads() \
  cuda_on_host::wait_for_threads(cuda_on_host::Scope::kBlock, __FILE__, __LINE__)
#define __syncwarp() cuda_on_host::wait_for_threads(cuda_on_host::Scope::kWarp, __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, lanes) \
  cuda_on_host::exchange_value(mask, value, lanes, __FILE__, __LINE__)
// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)

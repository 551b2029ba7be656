// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What our CUDA kernels share: their launch, f32 and bf16 memory in vectors, a row spread over a
// block's threads, sums over a block.
//
// Compiled by the device compiler, or, in tests, for the host after tests/fakes/cuda_on_host.h,
// which stands in for CUDA. Kernels are templates of kWidth, the elements in one access to memory:
// 16 bytes where all pointers and row lengths allow it (rows_align), else one element.
#pragma once

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

#include <cstdint>

#include "trireme/ops/cuda/launch_error.h"
#include "trireme/ops/cuda/stream.h"

namespace trireme::ops::cuda::detail {

inline constexpr int kWarp = 32;
inline constexpr int kFlatThreads = 256;  // of a block of an elementwise kernel
inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;

__host__ __device__ constexpr std::int64_t div_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// blocks: as many as have work. Kernels loop over their blocks' numbers, so that fewer will do.
struct Grid {
  std::int64_t blocks = 0;
  int threads = 0;  // threadIdx.x: whole warps
  int groups = 1;   // threadIdx.y
};

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const Grid& grid, Stream stream,
            const Arguments&... arguments) {
  constexpr std::int64_t kMostBlocks = 1 << 24;  // CUDA's own limit is 2^31 - 1
  if (grid.blocks <= 0) return;
  const auto blocks = static_cast<unsigned>(grid.blocks < kMostBlocks ? grid.blocks : kMostBlocks);
  const dim3 threads(static_cast<unsigned>(grid.threads), static_cast<unsigned>(grid.groups));
#ifdef __CUDACC__
  kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream.handle)>>>(arguments...);
#else
  cuda_on_host::run(blocks, threads, stream.handle, [&] { kernel(arguments...); });
#endif
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw_launch_error(name, cudaGetErrorString(error));
}

// bf16 as in ops/kernels/: widened exactly, rounded to nearest even, a NaN stays a NaN.
struct Bf16 {
  std::uint16_t bits;
};
__device__ inline float widen(float value) { return value; }
__device__ inline float widen(Bf16 value) {
  return __uint_as_float(static_cast<std::uint32_t>(value.bits) << 16);
}
__device__ inline void narrow(float value, float& to) { to = value; }
__device__ inline void narrow(float value, Bf16& to) {
  const std::uint32_t bits = __float_as_uint(value);
  const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const bool nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  to.bits = static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40U : rounded);
}
// As a T holds it.
template <class T>
__device__ float rounded_to(float value) {
  T stored;
  narrow(value, stored);
  return widen(stored);
}

inline constexpr std::int64_t kVectorBytes = 16;  // the widest access to memory of a thread
template <class T>
inline constexpr int kVector = kVectorBytes / sizeof(T);

// Neighbours in memory that are read or written at once.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth < kVectorBytes ? sizeof(T) * kWidth : kVectorBytes) Pack {
  T values[kWidth];
};
template <int kWidth, class T>
__device__ void load(const T* from, float* to) {
  const Pack<T, kWidth> pack = *reinterpret_cast<const Pack<T, kWidth>*>(from);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) to[i] = widen(pack.values[i]);
}
template <int kWidth>
__device__ void store(const float* from, float* to) {
  Pack<float, kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack.values[i] = from[i];
  *reinterpret_cast<Pack<float, kWidth>*>(to) = pack;
}
// Pairs of bf16 are put together here: a compiler that is left to it stores some one by one.
template <int kWords>
struct __attribute__((may_alias)) __attribute__((aligned(4 * kWords))) Words {
  std::uint32_t words[kWords];
};
template <int kWidth>
__device__ void store(const Pack<Bf16, kWidth>& pack, Bf16* to) {
  if constexpr (kWidth == 1) {
    *to = pack.values[0];
  } else {
    Words<kWidth / 2> pairs;
#pragma unroll
    for (int i = 0; i < kWidth; i += 2) {
      pairs.words[i / 2] = pack.values[i].bits | std::uint32_t{pack.values[i + 1].bits} << 16;
    }
    *reinterpret_cast<Words<kWidth / 2>*>(to) = pairs;
  }
}
template <int kWidth>
__device__ void store(const float* from, Bf16* to) {
  Pack<Bf16, kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) narrow(from[i], pack.values[i]);
  store(pack, to);
}

// Whether vectors of as many bytes may be used on all these pointers (null: not used).
template <std::int64_t kBytes = kVectorBytes, class... Pointers>
bool align(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % kBytes == 0) && ...);
}
// The same for their rows, which lie `elements` apart.
template <class T, class... Pointers>
bool rows_align(std::int64_t elements, const Pointers*... pointers) {
  return elements % kVector<T> == 0 && align(pointers...);
}

// Calls body(width, at) for vectors of kWidth elements, then for single ones, of [0, count);
// width: an integral_constant.
template <int kWidth>
struct Width {
  static constexpr int value = kWidth;
};
template <int kWidth, class Body>
__device__ void for_each_vector(std::int64_t count, const Body& body) {
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  const std::int64_t whole = count / kWidth;
  for (std::int64_t v = first; v < whole; v += step) body(Width<kWidth>{}, v * kWidth);
  for (std::int64_t i = whole * kWidth + first; i < count; i += step) body(Width<1>{}, i);
}
inline Grid flat_grid(std::int64_t count, int width) {
  return {div_up(div_up(count, width), kFlatThreads), kFlatThreads};
}

// A row over the threads of a group (threadIdx.y; most kernels have one in a block): each holds
// kShare elements at a time, in vectors that lie next to those of its neighbours. A row longer than
// the group's span is taken span by span.
inline constexpr int kShare = 8;

inline int row_threads(std::int64_t width, int most) {
  const std::int64_t threads = div_up(div_up(width, kShare), kWarp) * kWarp;
  return static_cast<int>(threads < kWarp ? kWarp : threads < most ? threads : most);
}
__device__ inline std::int64_t row_span() { return std::int64_t{blockDim.x} * kShare; }
// The column of element i of a share.
template <int kWidth>
__device__ std::int64_t share_column(std::int64_t begin, int i) {
  return begin + (std::int64_t{i / kWidth} * blockDim.x + threadIdx.x) * kWidth + i % kWidth;
}
// Elements beyond the row are `beyond`.
template <int kWidth, class T>
__device__ void load_share(const T* row, std::int64_t begin, std::int64_t width, float beyond,
                           float (&share)[kShare]) {
#pragma unroll
  for (int i = 0; i < kShare; i += kWidth) {
    const std::int64_t c = share_column<kWidth>(begin, i);
    if (c < width) {
      load<kWidth>(row + c, share + i);
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) share[i + k] = beyond;
    }
  }
}
template <int kWidth, class T>
__device__ void store_share(const float (&share)[kShare], std::int64_t begin, std::int64_t width,
                            T* row) {
#pragma unroll
  for (int i = 0; i < kShare; i += kWidth) {
    const std::int64_t c = share_column<kWidth>(begin, i);
    if (c < width) store<kWidth>(share + i, row + c);
  }
}

struct Add {
  template <class Value>
  static __device__ Value apply(Value a, Value b) {
    return a + b;
  }
};
struct Most {
  static __device__ float apply(float a, float b) { return fmaxf(a, b); }
};

// Every lane gets the same bits: the two of a pair combine the same values.
template <class Combine, class Value>
__device__ Value over_warp(Value value) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    value = Combine::apply(value, __shfl_xor_sync(kAllLanes, value, lanes));
  }
  return value;
}

// kCount values over the threads of each group, which all call it: each warp's, then the warps'.
// Reads before it come before writes behind it.
template <class Combine, int kCount, class Value>
__device__ void over_group(Value nothing, Value (&values)[kCount]) {
  __shared__ Value of_warps[kCount][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int first = threadIdx.y * warps;
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = over_warp<Combine>(values[i]);
  if (warps == 1) {
    __syncwarp();
    return;
  }
  __syncthreads();  // of_warps of the last call has been read
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (lane == 0) of_warps[i][first + warp] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = over_warp<Combine>(lane < warps ? of_warps[i][first + lane] : nothing);
  }
}
template <class Value>
__device__ Value group_sum(Value value) {
  Value values[1] = {value};
  over_group<Add>(Value{0}, values);
  return values[0];
}

}  // namespace trireme::ops::cuda::detail

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The kernels of the library, compiled for the host: what a device would run, thread by thread.

#include <bit>
#include <map>

#include "tests/fakes/fake_device.h"

namespace {

// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming): CUDA's own names.
struct Index {
  unsigned x = 0;
};
thread_local Index blockIdx;
thread_local Index threadIdx;
thread_local Index blockDim;
thread_local Index gridDim;

unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

}  // namespace

#define __device__
#define __global__
// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)
namespace kernels {
#include "trireme/comm/nccl/reduction_kernel.cu"
}  // namespace kernels

namespace fake {
namespace {

using Compiled = void (*)(const void* const*, const unsigned char*, int, int, void*, long long);

template <Compiled kernel>
void run(const KernelArguments& a, unsigned blocks, unsigned threads) {
  blockDim.x = threads;
  gridDim.x = blocks;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) {
      kernel(a.inputs, a.combines, a.num_inputs, a.divisor, a.out, a.count);
    }
  }
}

#define FAKE_KERNEL(name) \
  { #name, run < kernels::name> }
#define FAKE_KERNELS(types)                                                             \
  FAKE_KERNEL(trireme_reduce_##types##_sum), FAKE_KERNEL(trireme_reduce_##types##_min), \
      FAKE_KERNEL(trireme_reduce_##types##_max), FAKE_KERNEL(trireme_reduce_##types##_product)

}  // namespace

Kernel find_kernel(const std::string& name) {
  static const std::map<std::string, Kernel> all{
      FAKE_KERNELS(f32_f32),  FAKE_KERNELS(f64_f64),  FAKE_KERNELS(bf16_bf16),
      FAKE_KERNELS(bf16_f32), FAKE_KERNELS(f32_bf16), FAKE_KERNELS(f16_f16),
      FAKE_KERNELS(f16_f32),  FAKE_KERNELS(f32_f16),  FAKE_KERNELS(i8_i8),
      FAKE_KERNELS(u8_u8),    FAKE_KERNELS(i32_i32),  FAKE_KERNELS(i64_i64)};
  const auto found = all.find(name);
  return found == all.end() ? nullptr : found->second;
}

}  // namespace fake

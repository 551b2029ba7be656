// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The reduction tree on a device: reduce_nodes() of comm/reduction_tree.h, one thread per element,
// with the same bits but for the payload of a NaN. The library keeps this text and compiles it when
// it runs, for the device that it finds (reduction_kernels.h). Nothing is included: the compiler
// may come without headers. Tests compile it for the host, too.
//
// Inputs are taken from left to right; after input i the topmost partial results are combined
// combines[i] times. The last one stays in a register, those below it on a stack. Loops are not
// unrolled: that takes the compiler three times as long, and the kernel waits for memory anyway.

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

// As deep as a tree of 2^24 leaves.
constexpr int kMaxDepth = 25;

template <class T>
struct Plain {
  typedef T Stored;
  typedef T Value;
  static __device__ T load(T x) { return x; }
  static __device__ T store(T x) { return x; }
};

// 16-bit floats as in comm/float16.h: widened exactly, rounded to nearest even.
struct Bf16 {
  typedef u16 Stored;
  typedef f32 Value;
  static __device__ f32 load(u16 bits) { return __uint_as_float((u32)bits << 16); }
  static __device__ u16 store(f32 value) {
    const u32 bits = __float_as_uint(value);
    const u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (u16)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
  }
};
struct F16 {
  typedef u16 Stored;
  typedef f32 Value;
  static __device__ f32 load(u16 bits) {
    const u32 sign = (bits & 0x8000u) << 16;
    const u32 magnitude = bits & 0x7fffu;
    const u32 exponent = magnitude & 0x7c00u;
    const u32 normal = (magnitude << 13) + (112u << 23);
    const u32 special = (magnitude << 13) | 0x7f800000u;
    const f32 subnormal =
        __uint_as_float((magnitude << 13) + (113u << 23)) - __uint_as_float(113u << 23);
    const u32 finite = exponent == 0 ? __float_as_uint(subnormal) : normal;
    return __uint_as_float(sign | (exponent == 0x7c00u ? special : finite));
  }
  static __device__ u16 store(f32 value) {
    const u32 bits = __float_as_uint(value);
    const u32 sign = (bits >> 16) & 0x8000u;
    const u32 magnitude = bits & 0x7fffffffu;
    const u32 normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const u32 subnormal = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - (126u << 23);
    const u32 finite = magnitude < (113u << 23) ? subnormal : normal;
    const u32 large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return (u16)(sign | (magnitude >= 0x477ff000u ? large : finite));
  }
};

// The type in which overflow wraps.
template <class T>
struct Wrapping {
  typedef u32 Type;
};
template <>
struct Wrapping<i64> {
  typedef u64 Type;
};

template <class T>
struct Sum {
  static __device__ T apply(T a, T b) {
    typedef typename Wrapping<T>::Type U;
    return (T)((U)a + (U)b);
  }
};
template <>
struct Sum<f32> {
  static __device__ f32 apply(f32 a, f32 b) { return a + b; }
};
template <>
struct Sum<f64> {
  static __device__ f64 apply(f64 a, f64 b) { return a + b; }
};
template <class T>
struct Product {
  static __device__ T apply(T a, T b) {
    typedef typename Wrapping<T>::Type U;
    return (T)((U)a * (U)b);
  }
};
template <>
struct Product<f32> {
  static __device__ f32 apply(f32 a, f32 b) { return a * b; }
};
template <>
struct Product<f64> {
  static __device__ f64 apply(f64 a, f64 b) { return a * b; }
};
// NaN where either is.
template <class T>
struct Min {
  static __device__ T apply(T a, T b) { return (a < b) || (a != a) ? a : b; }
};
template <class T>
struct Max {
  static __device__ T apply(T a, T b) { return (a > b) || (a != a) ? a : b; }
};

// Integers have no mean.
template <class T>
__device__ T divide(T value, int /*divisor*/) {
  return value;
}
__device__ inline f32 divide(f32 value, int divisor) {
  return divisor == 0 ? value : value / (f32)divisor;
}
__device__ inline f64 divide(f64 value, int divisor) {
  return divisor == 0 ? value : value / (f64)divisor;
}

template <class In, class Out, class Op>
__device__ void reduce(const void* const* inputs, const u8* combines, int num_inputs, int divisor,
                       void* out, i64 count) {
  typedef typename In::Value Value;
  const i64 step = (i64)gridDim.x * blockDim.x;
#pragma unroll 1
  for (i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += step) {
    Value stack[kMaxDepth];
    int depth = 0;
    Value top = In::load(((const typename In::Stored*)inputs[0])[at]);
#pragma unroll 1
    for (int i = 1; i < num_inputs; ++i) {
      stack[depth++] = top;
      top = In::load(((const typename In::Stored*)inputs[i])[at]);
#pragma unroll 1
      for (int n = combines[i]; n > 0; --n) top = Op::apply(stack[--depth], top);
    }
    ((typename Out::Stored*)out)[at] = Out::store(divide(top, divisor));
  }
}

#define TRIREME_KERNEL(name, In, Out, Op)                                                      \
  extern "C" __global__ void name(const void* const* inputs, const u8* combines, int num_inputs, \
                                  int divisor, void* out, i64 count) {                         \
    reduce<In, Out, Op<In::Value> >(inputs, combines, num_inputs, divisor, out, count);        \
  }
#define TRIREME_KERNELS(in, out, In, Out)                         \
  TRIREME_KERNEL(trireme_reduce_##in##_##out##_sum, In, Out, Sum) \
  TRIREME_KERNEL(trireme_reduce_##in##_##out##_min, In, Out, Min) \
  TRIREME_KERNEL(trireme_reduce_##in##_##out##_max, In, Out, Max) \
  TRIREME_KERNEL(trireme_reduce_##in##_##out##_product, In, Out, Product)

TRIREME_KERNELS(f32, f32, Plain<f32>, Plain<f32>)
TRIREME_KERNELS(f64, f64, Plain<f64>, Plain<f64>)
TRIREME_KERNELS(bf16, bf16, Bf16, Bf16)
TRIREME_KERNELS(bf16, f32, Bf16, Plain<f32>)
TRIREME_KERNELS(f32, bf16, Plain<f32>, Bf16)
TRIREME_KERNELS(f16, f16, F16, F16)
TRIREME_KERNELS(f16, f32, F16, Plain<f32>)
TRIREME_KERNELS(f32, f16, Plain<f32>, F16)
TRIREME_KERNELS(i8, i8, Plain<i8>, Plain<i8>)
TRIREME_KERNELS(u8, u8, Plain<u8>, Plain<u8>)
TRIREME_KERNELS(i32, i32, Plain<i32>, Plain<i32>)
TRIREME_KERNELS(i64, i64, Plain<i64>, Plain<i64>)

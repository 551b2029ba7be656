// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Evaluation of the tree, block by block. Leaves are taken from left to right onto a stack of
// partial results; after leaf i the two topmost are combined once for every trailing one bit of i,
// as a binary counter carries. What is left at the end is combined from the top down. That is the
// recursive tree of the header: a subtree over 2^k leaves is complete exactly when the counter
// carries out of bit k. A block of 512 elements keeps the whole stack in the first cache level, and
// its partial results are local arrays, so that the loops vectorise although out may be one of the
// inputs.

#include "trireme/comm/reduction_tree.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

#include "trireme/base/check.h"
#include "trireme/comm/float16.h"

// One clone per vector width, chosen when the program starts. The sanitizers' start-up code cannot
// run before the resolvers do.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define TRIREME_VECTOR_CLONES \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define TRIREME_VECTOR_CLONES
#endif
#define TRIREME_INLINE inline __attribute__((always_inline))

namespace trireme {
namespace {

constexpr int kBlock = 512;  // elements
constexpr int kMaxDepth = 25;

// How elements are stored, and in which type they are combined.
template <class T>
struct Plain {
  using Stored = T;
  using Value = T;
  static TRIREME_INLINE Value load(Stored x) { return x; }
  static TRIREME_INLINE Stored store(Value x) { return x; }
};
struct Bf16 {
  using Stored = std::uint16_t;
  using Value = float;
  static TRIREME_INLINE Value load(Stored x) { return bf16_to_f32(x); }
  static TRIREME_INLINE Stored store(Value x) { return f32_to_bf16(x); }
};
struct F16 {
  using Stored = std::uint16_t;
  using Value = float;
  static TRIREME_INLINE Value load(Stored x) { return f16_to_f32(x); }
  static TRIREME_INLINE Stored store(Value x) { return f32_to_f16(x); }
};

// The unsigned type in which integer overflow wraps. Narrow types are promoted to int, which holds
// every result but must not be narrowed through a sign.
template <class T>
using Wrapping = std::make_unsigned_t<std::common_type_t<T, int>>;

struct Sum {
  template <class T>
  static TRIREME_INLINE T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
    } else {
      return a + b;
    }
  }
};
struct Product {
  template <class T>
  static TRIREME_INLINE T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
    } else {
      return a * b;
    }
  }
};
struct Min {
  template <class T>
  static TRIREME_INLINE T apply(T a, T b) {
    return (a < b) | (a != a) ? a : b;  // NOLINT(misc-redundant-expression): a is NaN
  }
};
struct Max {
  template <class T>
  static TRIREME_INLINE T apply(T a, T b) {
    return (a > b) | (a != a) ? a : b;  // NOLINT(misc-redundant-expression): a is NaN
  }
};

template <class Format, class Op>
struct Block {
  using Stored = typename Format::Stored;
  using Value = typename Format::Value;
  alignas(64) Value partial[kBlock];

  TRIREME_INLINE void take(const Stored* __restrict x, int n) {
    for (int i = 0; i < n; ++i) partial[i] = Format::load(x[i]);
  }
  TRIREME_INLINE void take_pair(const Stored* __restrict x, const Stored* __restrict y, int n) {
    for (int i = 0; i < n; ++i) partial[i] = Op::apply(Format::load(x[i]), Format::load(y[i]));
  }
  TRIREME_INLINE void combine(const Block& right, int n) {
    const Value* __restrict y = right.partial;
    for (int i = 0; i < n; ++i) partial[i] = Op::apply(partial[i], y[i]);
  }
  TRIREME_INLINE void divide(Value divisor, int n) {
    for (int i = 0; i < n; ++i) partial[i] = partial[i] / divisor;
  }
  TRIREME_INLINE void give(Stored* __restrict out, int n) const {
    for (int i = 0; i < n; ++i) out[i] = Format::store(partial[i]);
  }
};

template <class Format, class Op>
TRIREME_INLINE void reduce_block(std::span<const void* const> inputs, std::int64_t at, int n,
                                 Block<Format, Op>* stack) {
  using Stored = typename Format::Stored;
  const auto leaf = [&](std::size_t i) { return static_cast<const Stored*>(inputs[i]) + at; };
  int depth = 0;
  for (std::size_t i = 0; i < inputs.size(); i += 2) {
    if (i + 1 == inputs.size()) {
      stack[depth++].take(leaf(i), n);
      break;
    }
    stack[depth++].take_pair(leaf(i), leaf(i + 1), n);
    for (std::size_t carry = i >> 1; (carry & 1) != 0; carry >>= 1) {
      stack[depth - 2].combine(stack[depth - 1], n);
      --depth;
    }
  }
  for (; depth > 1; --depth) stack[depth - 2].combine(stack[depth - 1], n);
}

template <class Format, class Op, bool kMean>
TRIREME_VECTOR_CLONES void reduce(std::span<const void* const> inputs, void* out,
                                  std::int64_t count) {
  using Value = typename Format::Value;
  Block<Format, Op> stack[kMaxDepth];
  for (std::int64_t at = 0; at < count; at += kBlock) {
    const int n = static_cast<int>(std::min<std::int64_t>(kBlock, count - at));
    reduce_block<Format, Op>(inputs, at, n, stack);
    if constexpr (kMean) stack[0].divide(static_cast<Value>(inputs.size()), n);
    stack[0].give(static_cast<typename Format::Stored*>(out) + at, n);
  }
}

using Kernel = void (*)(std::span<const void* const>, void*, std::int64_t);

template <class Format>
Kernel kernel_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return reduce<Format, Sum, false>;
    case ReduceOp::kMean:
      if constexpr (std::is_floating_point_v<typename Format::Value>) {
        return reduce<Format, Sum, true>;
      }
      break;
    case ReduceOp::kMin:
      return reduce<Format, Min, false>;
    case ReduceOp::kMax:
      return reduce<Format, Max, false>;
    case ReduceOp::kProduct:
      return reduce<Format, Product, false>;
  }
  return nullptr;
}

Kernel kernel_of(DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::kF32:
      return kernel_of<Plain<float>>(op);
    case DType::kF64:
      return kernel_of<Plain<double>>(op);
    case DType::kBF16:
      return kernel_of<Bf16>(op);
    case DType::kF16:
      return kernel_of<F16>(op);
    case DType::kI8:
      return kernel_of<Plain<std::int8_t>>(op);
    case DType::kU8:
      return kernel_of<Plain<std::uint8_t>>(op);
    case DType::kI32:
      return kernel_of<Plain<std::int32_t>>(op);
    case DType::kI64:
      return kernel_of<Plain<std::int64_t>>(op);
  }
  return nullptr;
}

}  // namespace

int tree_split(int begin, int end) {
  return begin + static_cast<int>(std::bit_floor(static_cast<unsigned>(end - begin - 1)));
}

void reduce_tree(std::span<const void* const> inputs, void* out, std::int64_t count, DType dtype,
                 ReduceOp op) {
  TRIREME_ASSERT(!inputs.empty() && inputs.size() <= (std::size_t{1} << 24), "{} inputs",
                 inputs.size());
  const Kernel kernel = kernel_of(dtype, op);
  TRIREME_ASSERT(kernel != nullptr, "no mean of {}", dtype_name(dtype));
  kernel(inputs, out, count);
}

}  // namespace trireme

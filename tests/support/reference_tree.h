// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Reductions over ranks as the contract of comm/group.h words them: one element at a time, by
// recursion, nothing shared with the kernel under test.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "trireme/base/dtype.h"
#include "trireme/comm/group.h"

namespace trireme::testing {

using Bytes = std::vector<std::byte>;

// 16-bit floats by arithmetic: sign, exponent and mantissa taken apart.
inline double decode_small_float(std::uint16_t bits, int mantissa_bits) {
  const int exponent_bits = 15 - mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits & 0x7fff) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

// To nearest, ties to even: scaled so that the last place is one, then the rounding of libm.
inline std::uint16_t encode_small_float(float value, int mantissa_bits) {
  const int exponent_bits = 15 - mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const int top = (1 << exponent_bits) - 1;
  const auto infinity = static_cast<std::uint16_t>(top << mantissa_bits);
  if (std::isnan(value)) return 0x7fff;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isinf(magnitude)) return sign | infinity;
  int exponent = magnitude == 0 ? 1 - bias : std::max(std::ilogb(magnitude), 1 - bias);
  const double units = std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent));
  // Adding the mantissa to the exponent's field lets a carry do what it means.
  const auto field = static_cast<std::int64_t>(exponent + bias - 1) << mantissa_bits;
  const std::int64_t bits = field + static_cast<std::int64_t>(units);
  return sign | static_cast<std::uint16_t>(std::min<std::int64_t>(bits, infinity));
}

template <class T>
T reference_apply(ReduceOp op, T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::uint64_t;
    if (op == ReduceOp::kSum) return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    if (op == ReduceOp::kProduct) return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
  } else {
    if (op == ReduceOp::kSum || op == ReduceOp::kMean) return a + b;
    if (op == ReduceOp::kProduct) return a * b;
    if (std::isnan(a)) return a;
    if (std::isnan(b)) return b;
  }
  if (op == ReduceOp::kMin) return a < b ? a : b;
  return a > b ? a : b;
}

template <class T>
T reference_tree(const std::vector<T>& values, std::size_t begin, std::size_t end, ReduceOp op) {
  if (end - begin == 1) return values[begin];
  std::size_t left = 1;
  while (2 * left < end - begin) left *= 2;
  return reference_apply(op, reference_tree(values, begin, begin + left, op),
                         reference_tree(values, begin + left, end, op));
}

template <class Stored, class Value, class Load, class Store>
Bytes reference_elements(const std::vector<Bytes>& inputs, ReduceOp op, Load load, Store store) {
  Bytes result(inputs[0].size());
  std::vector<Value> values(inputs.size());
  for (std::size_t at = 0; at < result.size(); at += sizeof(Stored)) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      Stored stored;
      std::memcpy(&stored, &inputs[i][at], sizeof(stored));
      values[i] = load(stored);
    }
    Value value = reference_tree(values, 0, values.size(), op);
    if (op == ReduceOp::kMean) value = value / static_cast<Value>(inputs.size());
    const Stored stored = store(value);
    std::memcpy(&result[at], &stored, sizeof(stored));
  }
  return result;
}

inline Bytes reference_reduce(const std::vector<Bytes>& inputs, DType dtype, ReduceOp op) {
  const auto plain = [&]<class T>(T) {
    return reference_elements<T, T>(
        inputs, op, [](T x) { return x; }, [](T x) { return x; });
  };
  const auto small = [&](int mantissa_bits) {
    return reference_elements<std::uint16_t, float>(
        inputs, op,
        [&](std::uint16_t x) { return static_cast<float>(decode_small_float(x, mantissa_bits)); },
        [&](float x) { return encode_small_float(x, mantissa_bits); });
  };
  switch (dtype) {
    case DType::kF32:
      return plain(float{});
    case DType::kF64:
      return plain(double{});
    case DType::kBF16:
      return small(7);
    case DType::kF16:
      return small(10);
    case DType::kI8:
      return plain(std::int8_t{});
    case DType::kU8:
      return plain(std::uint8_t{});
    case DType::kI32:
      return plain(std::int32_t{});
    case DType::kI64:
      return plain(std::int64_t{});
  }
  return {};
}

// Elements that differ by rank and by index and whose sums round: a permutation, a missing rank or
// another association all show.
inline Bytes distinct_data(int rank, std::int64_t count, DType dtype) {
  Bytes bytes(static_cast<std::size_t>(count) * dtype_bytes(dtype));
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint64_t x = static_cast<std::uint64_t>(i) * 64 + static_cast<std::uint64_t>(rank) + 1;
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 32;
    // Within 2^-4 and 2^5 in magnitude, either sign.
    const double value = (static_cast<double>(x >> 12) / (1ull << 52) * 2 - 1) *
                         std::ldexp(1.0, static_cast<int>(x & 7) - 3);
    std::byte* to = &bytes[static_cast<std::size_t>(i) * dtype_bytes(dtype)];
    const auto put = [&](auto element) { std::memcpy(to, &element, sizeof(element)); };
    switch (dtype) {
      case DType::kF32:
        put(static_cast<float>(value));
        break;
      case DType::kF64:
        put(value);
        break;
      case DType::kBF16:
        put(encode_small_float(static_cast<float>(value), 7));
        break;
      case DType::kF16:
        put(encode_small_float(static_cast<float>(value), 10));
        break;
      case DType::kI8:
      case DType::kU8:
        put(static_cast<std::uint8_t>(x));
        break;
      case DType::kI32:
        put(static_cast<std::uint32_t>(x));
        break;
      case DType::kI64:
        put(x);
        break;
    }
  }
  return bytes;
}

// The distinct data of every rank.
inline std::vector<Bytes> inputs_of(int ranks, std::int64_t count, DType dtype) {
  std::vector<Bytes> inputs;
  for (int rank = 0; rank < ranks; ++rank) inputs.push_back(distinct_data(rank, count, dtype));
  return inputs;
}

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A span of elements that travels: memory that the caller owns, with its dtype and where it lies.
// No LibTorch here; parallel/tensor_buffer.h makes one from a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "trireme/base/dtype.h"

namespace trireme {

constexpr int kHostMemory = -1;

struct Buffer {
  void* data = nullptr;
  std::int64_t count = 0;  // elements
  DType dtype = DType::kF32;
  int cuda_device = kHostMemory;  // the device's number, see WorldOptions::cuda

  std::size_t bytes() const { return static_cast<std::size_t>(count) * dtype_bytes(dtype); }
};

struct ConstBuffer {
  const void* data = nullptr;
  std::int64_t count = 0;  // elements
  DType dtype = DType::kF32;
  int cuda_device = kHostMemory;

  ConstBuffer() = default;
  ConstBuffer(const void* d, std::int64_t n, DType t, int device = kHostMemory)
      : data(d), count(n), dtype(t), cuda_device(device) {}
  ConstBuffer(const Buffer& b)  // NOLINT
      : data(b.data), count(b.count), dtype(b.dtype), cuda_device(b.cuda_device) {}

  std::size_t bytes() const { return static_cast<std::size_t>(count) * dtype_bytes(dtype); }
};

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::kF32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::kF64;
}
template <>
constexpr DType dtype_of<std::int8_t>() {
  return DType::kI8;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
  return DType::kU8;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::kI32;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
  return DType::kI64;
}

template <class T>
Buffer buffer_of(std::span<T> span) {
  return {span.data(), static_cast<std::int64_t>(span.size()), dtype_of<T>()};
}
template <class T>
ConstBuffer const_buffer_of(std::span<const T> span) {
  return {span.data(), static_cast<std::int64_t>(span.size()), dtype_of<T>()};
}

}  // namespace trireme

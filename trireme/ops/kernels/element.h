// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the kernels of ops/ read and write: f32 and bf16, matrices by pointer and strides.
#pragma once

#include <cstdint>

namespace trireme::ops {

enum class Element : std::uint8_t { kF32, kBf16 };

constexpr std::int64_t element_bytes(Element element) { return element == Element::kF32 ? 4 : 2; }

// Element (r, c) lies at data + r row_stride + c column_stride, in elements; one of the strides is
// 1.
struct MatrixView {
  const void* data = nullptr;
  Element element = Element::kF32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 1;

  MatrixView transposed() const {
    return {data, element, columns, rows, column_stride, row_stride};
  }
};

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The arithmetic of low_rank_codec.h: tall matrices of few columns, stored by columns. Every sum
// has one order, whatever the vector units.
#pragma once

#include <cstdint>
#include <span>

#include "trireme/comm/codec/low_rank_codec.h"

namespace trireme::detail {

// out (rows, by columns) = matrix times q (cols, by columns).
void multiply(const MatrixShape& shape, std::span<const float> matrix, std::span<const float> q,
              int components, std::span<float> out);
// out (cols, by columns) = transposed matrix times p (rows, by columns).
void multiply_transposed(const MatrixShape& shape, std::span<const float> matrix,
                         std::span<const float> p, int components, std::span<float> out);
// matrix = p times transposed q.
void multiply_outer(const MatrixShape& shape, std::span<const float> p, std::span<const float> q,
                    int components, std::span<float> matrix);
// rest = matrix less p times transposed q; rest may be the matrix.
void subtract_outer(const MatrixShape& shape, std::span<const float> matrix,
                    std::span<const float> p, std::span<const float> q, int components,
                    std::span<float> rest);

float dot(std::span<const float> a, std::span<const float> b);
// y += factor * x.
void add_scaled(float factor, std::span<const float> x, std::span<float> y);

}  // namespace trireme::detail

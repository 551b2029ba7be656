// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Which rows of a gradient are added to which row of a parameter, in what order: what
// add_row_groups() takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace trireme::ops {

// Group g has the rows order[starts[g]] .. order[starts[g + 1] - 1], ascending, maybe none, and
// adds to row targets[g]. i64, contiguous, on the device of what they were made from.
struct RowGrouping {
  at::Tensor order;
  at::Tensor starts;
  at::Tensor targets;
};

// Row r of the gradient belongs to row indices[r] of a parameter with `rows` rows. indices: i64,
// contiguous, each in [0, rows), or kNoRow, which has no group. On a CUDA device every row has a
// group, so that nothing has to wait for their number.
RowGrouping group_by_index(const at::Tensor& indices, std::int64_t rows);

// Row r of the gradient, of as many as indices [..., T] has elements, belongs to row r % T.
RowGrouping group_by_position(const at::Tensor& indices);

}  // namespace trireme::ops

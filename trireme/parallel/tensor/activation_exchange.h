// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What happens to activations where a module whose matrices are cut across ranks begins and ends,
// as operations with a gradient (Shoeybi et al. 2019, Megatron-LM, section 3; Korthikanti et al.
// 2022, section 4.2, for rows).
//
//                      forward          backward
//   copy_to_ranks      as it is         all_reduce
//   sum_over_ranks     all_reduce       as it is
//   gather_rows        all_gather       reduce_scatter
//   scatter_row_sums   reduce_scatter   all_gather
//   gather_columns     all_gather       this rank's columns
//
// Rows [begin, end) of N that rank r of n has: N r / n to N (r + 1) / n, rounded down; so they may
// differ by one, and be none. All functions are collective over the group and block, forward and
// backward; the group outlives the backward pass. Gradients of any dtype of f32, f64, bf16 and f16;
// sums as Group's. Throw CommError, ShapeError for tensors that do not travel.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

namespace trireme {

class Group;

namespace detail {

// Of `count` rows, heads, columns, those of one of `ranks`: begin and end.
std::pair<std::int64_t, std::int64_t> even_part(std::int64_t count, int rank, int ranks);

// For the input of a matrix cut by its outputs. x: any shape, the same on all ranks.
at::Tensor copy_to_ranks(const at::Tensor& x, Group& group);

// For the output of a matrix cut by its inputs: the sum, the same bits on all ranks. x: any shape;
// its memory becomes the sum's, so that x is of no use afterwards.
at::Tensor sum_over_ranks(const at::Tensor& x, Group& group);

// x: this rank's rows of [rows, C] -> all of them.
at::Tensor gather_rows(const at::Tensor& x_nC, std::int64_t rows, Group& group);

// x: [..., C], taken as rows -> this rank's rows [n, C] of the sum over ranks.
at::Tensor scatter_row_sums(const at::Tensor& x, Group& group);

// x: [N, this rank's of `columns`] -> [N, columns]. For values that all ranks then use in the same
// way: the gradient is that of one rank's use.
at::Tensor gather_columns(const at::Tensor& x, std::int64_t columns, Group& group);

}  // namespace detail
}  // namespace trireme

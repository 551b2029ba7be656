// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The products of grouped_linear.h, without a graph: of rows [N, ...] in groups, each with the
// matrix of its expert out of a stack [E, M, K]. Internal to ops.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trireme/ops/grouped_linear.h"
#include "trireme/ops/kernels/matrix_product.h"

namespace trireme::ops::detail {

// Calls f(expert, first row, rows) for the groups that have any.
template <class F>
void for_each_group(const RowsByExpert& groups, const F& f) {
  std::int64_t first = 0;
  for (const ExpertRows& group : groups) {
    if (group.rows > 0) f(group.expert, first, group.rows);
    first += group.rows;
  }
}

// Uninitialised, as many rows as `rows` has.
at::Tensor rows_like(const at::Tensor& rows, std::int64_t columns);

// bias: [E, M], or undefined.
Epilogue epilogue_with_bias(const at::Tensor& bias);

// left [N, K] times each expert's matrix transposed -> [N, M]. The epilogue's pointers are those of
// all rows, its `out` is what this makes.
at::Tensor grouped_times_transposed(const at::Tensor& left, const at::Tensor& weight_EMK,
                                    const RowsByExpert& groups, const Epilogue& epilogue);
// left [N, M] times each expert's matrix -> [N, K], likewise.
at::Tensor grouped_times(const at::Tensor& left, const at::Tensor& weight_EMK,
                         const RowsByExpert& groups, const Epilogue& epilogue);
// out [N, K] += the latter.
void add_grouped_product(const at::Tensor& left, const at::Tensor& weight_EMK,
                         const RowsByExpert& groups, at::Tensor& out);

// Of matrices [E, M, K], from the gradients of their outputs [N, M] and their inputs [N, K]: now or
// recorded, as backward() returns it (parameter_gradient.h).
at::Tensor grouped_matrix_gradient(const at::Tensor& weight_EMK, const at::Tensor& y_grad,
                                   const at::Tensor& x, const RowsByExpert& groups);
// The same computed now, whatever records.
at::Tensor grouped_matrix_gradient_now(const at::Tensor& weight_EMK, const at::Tensor& y_grad,
                                       const at::Tensor& x, const RowsByExpert& groups);
// Of biases [E, M], likewise; undefined for undefined ones.
at::Tensor grouped_bias_gradient(const at::Tensor& bias_EM, const at::Tensor& y_grad,
                                 const RowsByExpert& groups);

}  // namespace trireme::ops::detail

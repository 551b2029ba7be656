// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Linear layers and MLPs of many experts: the rows of a matrix lie in groups, one after the other,
// and each group is multiplied by the matrix of its expert.
//
//   // 5 rows of expert 1, none of expert 0, then 2 more of expert 1: of another micro-batch, say
//   const ops::RowsByExpert groups{{1, 5}, {0, 0}, {1, 2}};
//   y_NM = ops::grouped_linear(x_NK, weight_EMK, {}, groups);  // N = 7
//
// A group without rows costs nothing. Matrices are those of ops/linear.h, stacked: [experts, out,
// in]. In f32 and bf16 on the CPU every group is a product of ops' own, with the bits that
// ops::linear() would give of its rows alone; gradients of parameters are sums in f32 over the
// groups of an expert in their order (parameter_gradient.h). Other dtypes and devices go through
// LibTorch, group by group.
//
// Cost: as ops/linear.h's, by the rows of each group. Blocks. Any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "trireme/ops/linear.h"

namespace trireme::ops {

struct ExpertRows {
  std::int64_t expert = 0;
  std::int64_t rows = 0;
};
// Their rows add up to those of the matrix.
using RowsByExpert = std::vector<ExpertRows>;

// Of each group x weight[expert]^T (+ bias[expert]). x: [N, K]; weight: [E, M, K]; bias: [E, M] or
// undefined; one floating dtype. Returns [N, M]. Gradient: x, weight, bias. Throws ShapeError.
at::Tensor grouped_linear(const at::Tensor& x_NK, const at::Tensor& weight_EMK,
                          const at::Tensor& bias_EM, const RowsByExpert& groups);

// gelu_mlp() of each group. up: [E, F, C]; down: [E, C', F]; biases [E, F] and [E, C'], or
// undefined. Returns [N, C']. Gradient: all. Throws ShapeError.
at::Tensor grouped_gelu_mlp(const at::Tensor& x_NC, const at::Tensor& up_EFC,
                            const at::Tensor& up_bias_EF, const at::Tensor& down_ECF,
                            const at::Tensor& down_bias_EC, const RowsByExpert& groups,
                            HiddenValues hidden = HiddenValues::kKept);

// swiglu_mlp() of each group. Shapes as above. Gradient: all. Throws ShapeError.
at::Tensor grouped_swiglu_mlp(const at::Tensor& x_NC, const at::Tensor& gate_EFC,
                              const at::Tensor& up_EFC, const at::Tensor& down_ECF,
                              const RowsByExpert& groups,
                              HiddenValues hidden = HiddenValues::kKept);

}  // namespace trireme::ops

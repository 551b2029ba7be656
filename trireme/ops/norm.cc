// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>

namespace trireme::ops {

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight_C, const at::Tensor& bias_C,
                      double epsilon) {
  return at::layer_norm(x, weight_C.sizes(), weight_C, bias_C, epsilon);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight_C, double epsilon) {
  const auto wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const auto inverse_rms = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + epsilon);
  return (wide * inverse_rms).to(x.scalar_type()) * weight_C;
}

}  // namespace trireme::ops

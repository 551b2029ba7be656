// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// An MLP's hidden values once more, where they were not kept. Internal to the operations that have
// them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "trireme/ops/device_kernels.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops::detail {

// gelu(before), or silu(before) factor where that is defined. Both contiguous, of the same shape.
inline at::Tensor activated(const at::Tensor& before, const at::Tensor& factor) {
  at::Tensor out = at::empty(before.sizes(), before.options());
  activate(before.device(), {.element = element_of(before),
                             .before = before.data_ptr(),
                             .factor = factor.defined() ? factor.data_ptr() : nullptr,
                             .out = out.data_ptr(),
                             .count = before.numel()});
  return out;
}

}  // namespace trireme::ops::detail

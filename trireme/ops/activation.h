// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Nonlinearities between the MLP's matrices.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016, the tanh form that
// GPT-2 uses), in f32 at least. Gradient: x.
at::Tensor gelu(const at::Tensor& x);

// silu(gate) up = gate sigmoid(gate) up. Gradient: both.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The operations of a training step as a table, each alone, at the sizes of GPT-2 124M with 4
// sequences of 256 tokens: what it takes, how it is called, and what it must at least compute and
// move. A new operation is a line more in op_cases().
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "trireme/train/bench/step_products.h"

namespace trireme {

// An operation on inputs that are made.
struct OpRun {
  std::function<at::Tensor()> forward;
  std::vector<at::Tensor> with_gradient;  // inputs; empty: it has no backward
};

struct OpCase {
  std::string op;
  std::string shape;
  std::function<OpRun()> make;
  // Matrix products, named "... forward" and "... backward"; none where memory is the limit.
  std::vector<MatrixProduct> products;
  // Each input and saved tensor read once, each result written once.
  double forward_bytes = 0;
  double backward_bytes = 0;
};

// dtype: f32 or bf16.
std::vector<OpCase> op_cases(at::ScalarType dtype);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Dropout: elements of the residual stream that a training pass leaves out.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string>
#include <utility>

#include "trireme/nn/layer.h"
#include "trireme/nn/linear.h"

namespace trireme::nn {

// What is dropped, in training: a share of what the embeddings give and of what each half of a
// block adds to the stream.
struct DropoutConfig {
  double share = 0;
  std::uint64_t seed = 0;
};

// What a pass knows of it. rows undefined: nothing is dropped.
struct DropoutRows {
  DropoutConfig config = {};
  at::Tensor rows_BT = {};  // i64: the number of each token among all that there are
};

// A layer without parameters.
class DropoutImpl : public Layer {
 public:
  // x: [..., C], a row for each of what rows_hook (empty: nothing) makes of the token numbers ->
  // the same shape (ops::dropout()). place: of the layer in its model.
  at::Tensor forward(const at::Tensor& x, const DropoutRows& rows, std::uint32_t place);

  void set_rows_hook(TensorHook hook) { rows_hook_ = std::move(hook); }
  ParameterRole role(const std::string& parameter) const override;

 private:
  TensorHook rows_hook_;
};
TORCH_MODULE(Dropout);

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Mlp: the feed-forward half of a block. gpt2: down(gelu(up(x))), GELU in its tanh form. llama:
// down(silu(gate(x)) x up(x)) (SwiGLU; Shazeer 2020).
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include <utility>

#include "trireme/nn/linear.h"
#include "trireme/nn/model_config.h"
#include "trireme/ops/linear.h"

namespace trireme::nn {

class MlpImpl : public torch::nn::Module {
 public:
  // Children gate (llama only) and up [F, C], down [C, F]; biases with gpt2. F: mlp_width.
  explicit MlpImpl(const ModelConfig& config);

  // x: [..., C] -> [..., C]. One operation (ops/linear.h) between up's input hook, which is gate's
  // too, and down's output hook.
  at::Tensor forward(const at::Tensor& x);

  // In the place of up's input hook and down's output hook, which are set too.
  void set_rows_runner(RowsRunner runner) { rows_runner_ = std::move(runner); }

  // kKept until it is called.
  void set_hidden_values(ops::HiddenValues hidden) { hidden_ = hidden; }

 private:
  ops::HiddenValues hidden_ = ops::HiddenValues::kKept;
  RowsRunner rows_runner_;
  Linear gate_{nullptr};
  Linear up_{nullptr};
  Linear down_{nullptr};
};
TORCH_MODULE(Mlp);

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A transformer's encoder block with its norms before attention and MLP, which trains without
// warm-up (Xiong et al. 2020); that of torch::nn has them after.
#pragma once

#include <torch/nn.h>

namespace trireme::examples {

struct EncoderBlockImpl : torch::nn::Module {
  EncoderBlockImpl(std::int64_t width, std::int64_t heads)
      : attention(width, heads),
        up(width, 4 * width),
        down(4 * width, width),
        first_norm(torch::nn::LayerNormOptions({width})),
        second_norm(torch::nn::LayerNormOptions({width})) {
    register_module("attention", attention);
    register_module("up", up);
    register_module("down", down);
    register_module("first_norm", first_norm);
    register_module("second_norm", second_norm);
  }
  // [T, B, C], of which every place sees every other.
  torch::Tensor forward(const torch::Tensor& x) {
    const auto y = first_norm(x);
    const auto z = x + std::get<0>(attention(y, y, y));
    return z + down(torch::gelu(up(second_norm(z))));
  }

  torch::nn::MultiheadAttention attention;
  torch::nn::Linear up, down;
  torch::nn::LayerNorm first_norm, second_norm;
};
TORCH_MODULE(EncoderBlock);

}  // namespace trireme::examples

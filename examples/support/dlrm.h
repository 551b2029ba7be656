// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A model that tells which advertisement is clicked (Naumov et al. 2019, "Deep Learning
// Recommendation Model"): an MLP makes a vector of the numbers, each category has a vector, and
// another MLP sees how well they fit, by the dot products of all pairs.
//
// The vectors of the categories are given, so the model knows nothing of where they live: their
// gradients are what a parameter server is told.
//
//   Dlrm model(DlrmOptions{});
//   auto rows = spread(pulled, distinct).requires_grad_();  // [B, categories, width]
//   const auto logits = model(batch.numbers, rows);
//   torch::binary_cross_entropy_with_logits(logits, batch.labels).backward();
//   push(distinct.ids, row_gradients(rows.grad(), distinct));
#pragma once

#include <torch/nn.h>

#include "examples/support/click_batch.h"

namespace trireme::examples {

struct DlrmOptions {
  std::int64_t numbers = kClickNumbers;
  std::int64_t categories = kClickCategories;
  std::int64_t width = 16;   // of a category's vector
  std::int64_t hidden = 64;  // of the MLPs; the upper one's first layer is twice as wide
};

struct DlrmImpl : torch::nn::Module {
  explicit DlrmImpl(const DlrmOptions& options)
      : bottom(torch::nn::Linear(options.numbers, options.hidden), torch::nn::ReLU(),
               torch::nn::Linear(options.hidden, options.width)),
        top(torch::nn::Linear(options.width + num_pairs(options), 2 * options.hidden),
            torch::nn::ReLU(), torch::nn::Linear(2 * options.hidden, options.hidden),
            torch::nn::ReLU(), torch::nn::Linear(options.hidden, 1)) {
    register_module("bottom", bottom);
    register_module("top", top);
  }

  // numbers f32 [B, numbers], rows f32 [B, categories, width] -> logits f32 [B].
  torch::Tensor forward(const torch::Tensor& numbers, const torch::Tensor& rows) {
    const auto dense = bottom->forward(numbers);
    const auto vectors = torch::cat({dense.unsqueeze(1), rows}, 1);
    const auto products = torch::bmm(vectors, vectors.transpose(1, 2)).flatten(1);
    return top->forward(torch::cat({dense, products}, 1)).squeeze(1);
  }

  // Each pair comes twice, and each vector with itself: a matrix product as it is costs less than
  // picking half of it.
  static std::int64_t num_pairs(const DlrmOptions& options) {
    return (options.categories + 1) * (options.categories + 1);
  }

  torch::nn::Sequential bottom, top;
};
TORCH_MODULE(Dlrm);

}  // namespace trireme::examples

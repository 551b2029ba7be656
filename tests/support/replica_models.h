// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Plain torch modules that ranks train together, each on samples of its own, and what one process
// computes of all samples.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/parallel/data/replica.h"

namespace trireme::testing {

// Rows [first, first + rows) of an endless matrix of samples: no two elements alike, in (-1, 1).
inline at::Tensor formula_samples(std::int64_t first, std::int64_t rows, std::int64_t cols,
                                  at::ScalarType dtype = at::kDouble) {
  const at::Tensor i = torch::arange(first * cols, (first + rows) * cols, at::kDouble);
  return (i * 0.7310 + (i * 0.0173).cos()).sin().view({rows, cols}).to(dtype);
}

// A row of layers w x + b with tanh between them; each weight is more than one block of the flat
// buffers, so that small buckets hold one each.
struct Chain : torch::nn::Module {
  static constexpr std::int64_t kWidth = 67;

  explicit Chain(int layers, at::ScalarType dtype = at::kDouble, std::int64_t salt = 0) {
    for (int i = 0; i < layers; ++i) {
      const std::int64_t first = 1000 * salt + 100 * i;
      weights.push_back(register_parameter("weight" + std::to_string(i),
                                           formula_samples(first, kWidth, kWidth, dtype) * 0.2));
      biases.push_back(register_parameter("bias" + std::to_string(i),
                                          formula_samples(first + 70, 1, kWidth, dtype)[0] * 0.1));
    }
  }

  at::Tensor forward(at::Tensor x) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      x = (x.matmul(weights[i]) + biases[i]).tanh();
      if (between && i + 1 < weights.size()) x = between(i, x);
    }
    return x;
  }
  // Of samples [first, first + rows): their mean.
  at::Tensor loss(std::int64_t first, std::int64_t rows) {
    const at::Tensor x = formula_samples(first, rows, kWidth, weights[0].scalar_type());
    return (forward(x) - x.flip({1})).square().mean();
  }

  std::vector<at::Tensor> weights, biases;
  // Between layer i and the next one.
  std::function<at::Tensor(std::size_t i, const at::Tensor& x)> between;
};

// Of micro-batch m of a step, three samples.
inline at::Tensor chain_loss(Chain& chain, std::int64_t step, std::int64_t micro_batches,
                             std::int64_t m) {
  return chain.loss((step * micro_batches + m) * 3, 3);
}

inline std::vector<at::Tensor> values_of(const torch::nn::Module& module) {
  std::vector<at::Tensor> values;
  for (const at::Tensor& parameter : module.parameters()) {
    values.push_back(parameter.detach().clone());
  }
  return values;
}

// By parameter; undefined where there is none.
inline std::vector<at::Tensor> gradients_of(const torch::nn::Module& module) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : module.parameters()) {
    gradients.push_back(parameter.grad().defined() ? parameter.grad().clone() : at::Tensor());
  }
  return gradients;
}

// The largest difference of two lists of tensors, relative to the largest element of b. 1 where one
// has a tensor that the other lacks. NaN where there is one.
inline double relative_difference(const std::vector<at::Tensor>& a,
                                  const std::vector<at::Tensor>& b) {
  double largest = 1e-300, difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (a[i].defined() != b[i].defined()) return 1;
    if (!a[i].defined()) continue;
    const at::Tensor expected = b[i].to(at::kDouble);
    largest = std::max(largest, expected.abs().max().item<double>());
    const double here = (a[i].to(at::kDouble) - expected).abs().max().item<double>();
    if (!(here <= difference)) difference = here;
  }
  return difference / largest;
}

inline bool same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].defined() != b[i].defined() || (a[i].defined() && !a[i].equal(b[i]))) return false;
  }
  return a.size() == b.size();
}

// Samples of a micro-batch, and buckets of one block of f64: each weight of a Chain travels alone.
inline constexpr std::int64_t kChainRows = 3;
inline constexpr std::int64_t kChainBucketBytes = std::int64_t{32} << 10;

// A whole step of a rank on samples of its own.
inline void run_step(Chain& chain, Replica& replica, const Group& group) {
  chain.zero_grad();
  for (const std::int64_t m : replica.micro_batches()) {
    replica.backward(chain.loss((100 * group.rank() + m) * kChainRows, kChainRows));
  }
  replica.finish_gradients();
}

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A small net and samples for tests of Model.
#pragma once

#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <cstdint>

#include "trireme/train/dataset.h"
#include "trireme/train/model.h"

namespace trireme::testing {

constexpr std::int64_t kSamples = 53;
constexpr std::int64_t kFeatures = 6;
// The last batch has 3 samples: less than there are micro-batches.
constexpr std::int64_t kBatch = 10;
// Each value another one.
inline at::Tensor formula(at::IntArrayRef sizes, double phase, at::ScalarType dtype = at::kFloat) {
  const at::Tensor count = torch::arange(c10::multiply_integers(sizes), torch::kDouble);
  return torch::sin(count * 0.71 + phase).reshape(sizes).to(dtype);
}

inline Samples samples(std::int64_t count, double phase, at::ScalarType dtype = at::kFloat) {
  const at::Tensor x = formula({count, kFeatures}, phase, dtype);
  return {x, x.sum(1, true).gt(0).to(dtype)};
}

inline Dataset dataset(std::int64_t count, double phase, at::ScalarType dtype = at::kFloat) {
  const auto [x, y] = samples(count, phase, dtype);
  return {x, y};
}

inline torch::nn::Sequential make_net(double phase, at::ScalarType dtype = at::kFloat) {
  torch::nn::Sequential net(torch::nn::Linear(kFeatures, 5), torch::nn::Tanh(),
                            torch::nn::Linear(5, 1), torch::nn::Sigmoid());
  net->to(dtype);
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : net->parameters()) {
    parameter.copy_(formula(parameter.sizes(), phase += 1, dtype));
  }
  return net;
}

inline FitOptions quiet(std::int64_t epochs) {
  return {.epochs = epochs, .batch_size = kBatch, .progress = false};
}

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The first program of every framework, on two workers that it starts itself.
//
// Run:  ./00_mirrored   (two workers), ./00_mirrored 1, ./00_mirrored 4, all of which print:
//
//   Epoch  1/10  loss 0.5835  accuracy 0.7240
//   Epoch  2/10  loss 0.2402  accuracy 0.9490
//   Epoch  3/10  loss 0.1094  accuracy 0.9750
//   Epoch  4/10  loss 0.0791  accuracy 0.9800
//   Epoch  5/10  loss 0.0652  accuracy 0.9820
//   Epoch  6/10  loss 0.0550  accuracy 0.9880
//   Epoch  7/10  loss 0.0540  accuracy 0.9850
//   Epoch  8/10  loss 0.0508  accuracy 0.9870
//   Epoch  9/10  loss 0.0439  accuracy 0.9850
//   Epoch 10/10  loss 0.0413  accuracy 0.9930

#include <torch/nn.h>

#include <cstdlib>

#include "trireme/base/random.h"
#include "trireme/train/model.h"

using namespace torch::nn;
using namespace trireme;

// 1000 samples of 20 normal features; the label says on which side of a plane a sample lies.
Samples planted_samples() {
  const RandomStream features(7, "features");
  const RandomStream plane(7, "plane");
  const at::Tensor x = torch::empty({1000, 20});
  const at::Tensor y = torch::empty({1000, 1});
  for (std::int64_t i = 0; i < 1000; ++i) {
    double side = 0;
    for (std::int64_t j = 0; j < 20; ++j) {
      const double value = features.normal(static_cast<std::uint64_t>(20 * i + j));
      side += value * plane.normal(static_cast<std::uint64_t>(j));
      x[i][j] = value;
    }
    y[i][0] = side > 0 ? 1 : 0;
  }
  return {x, y};
}

int main(int argc, char** argv) {
  const auto [x, y] = planted_samples();

  MirroredStrategy strategy({.workers = argc > 1 ? std::atoi(argv[1]) : 2});
  const auto scope = strategy.scope();
  Model model(scope, Sequential(Linear(20, 10), ReLU(), Linear(10, 1), Sigmoid()));
  model.compile(Adam({.learning_rate = 0.01}), BinaryCrossEntropy(), {BinaryAccuracy()});
  model.fit({x, y}, {.epochs = 10, .batch_size = 32});
  strategy.close();
}

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What Model::compile() takes beside an optimizer: losses and metrics, by Keras's names.
//
//   model.compile(Adam({.learning_rate = 0.01}), BinaryCrossEntropy(), {BinaryAccuracy()});
//
// One of your own:
//
//   const Metric bias{"bias", [](const at::Tensor& predictions, const at::Tensor& targets) {
//     return (predictions - targets).mean();
//   }};
//
// Predictions [n, ...] and targets of the same shape, except where it says otherwise. Functions
// throw ShapeError when these do not fit.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

namespace trireme {

// The mean over the n samples, a scalar.
using Objective =
    std::function<at::Tensor(const at::Tensor& predictions, const at::Tensor& targets)>;

// What training makes small. Differentiable.
struct Loss {
  Objective mean;
};

// What is only told.
struct Metric {
  std::string name;
  Objective mean;
};

struct CrossEntropyOptions {
  bool from_logits = false;  // predictions are what a sigmoid would be applied to
};
// Targets 0 or 1 (or between), predictions in [0, 1].
struct BinaryCrossEntropy : Loss {
  explicit BinaryCrossEntropy(const CrossEntropyOptions& options = {});
};
// Predictions: logits [n, classes]; targets: i64 [n].
struct SparseCategoricalCrossEntropy : Loss {
  SparseCategoricalCrossEntropy();
};
struct MeanSquaredError : Loss {
  MeanSquaredError();
};

// "accuracy": predictions above the threshold are 1.
struct BinaryAccuracy : Metric {
  explicit BinaryAccuracy(double threshold = 0.5);
};
// "accuracy". Predictions [n, classes]; targets: i64 [n].
struct SparseCategoricalAccuracy : Metric {
  SparseCategoricalAccuracy();
};
// "mean_absolute_error"
struct MeanAbsoluteError : Metric {
  MeanAbsoluteError();
};

}  // namespace trireme

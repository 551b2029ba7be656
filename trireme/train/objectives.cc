// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/objectives.h"

#include <ATen/ops/binary_cross_entropy.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/mse_loss.h>

#include <sstream>
#include <string_view>

#include "trireme/base/error.h"

namespace trireme {
namespace {

std::string sizes_of(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes();
  return text.str();
}

void check_same_sizes(std::string_view what, const at::Tensor& predictions,
                      const at::Tensor& targets) {
  if (predictions.sizes() != targets.sizes()) {
    throw_error<ShapeError>("{}: predictions are {}, targets {}; they must be the same", what,
                            sizes_of(predictions), sizes_of(targets));
  }
}

void check_classes(std::string_view what, const at::Tensor& predictions,
                   const at::Tensor& targets) {
  if (predictions.dim() != 2 || targets.dim() != 1 || predictions.size(0) != targets.size(0) ||
      targets.scalar_type() != at::kLong) {
    throw_error<ShapeError>(
        "{}: predictions are {}, targets {} of {}; they must be [n, classes], and [n] of i64", what,
        sizes_of(predictions), sizes_of(targets), c10::toString(targets.scalar_type()));
  }
}

// f64: rounding a share of samples to f32 would depend on how many they are.
at::Tensor share_of(const at::Tensor& hits) { return hits.to(at::kDouble).mean(); }

}  // namespace

BinaryCrossEntropy::BinaryCrossEntropy(const CrossEntropyOptions& options) {
  mean = [from_logits = options.from_logits](const at::Tensor& predictions,
                                             const at::Tensor& targets) {
    check_same_sizes("binary cross-entropy", predictions, targets);
    return from_logits ? at::binary_cross_entropy_with_logits(predictions, targets)
                       : at::binary_cross_entropy(predictions, targets);
  };
}

SparseCategoricalCrossEntropy::SparseCategoricalCrossEntropy() {
  mean = [](const at::Tensor& predictions, const at::Tensor& targets) {
    check_classes("categorical cross-entropy", predictions, targets);
    return at::cross_entropy_loss(predictions, targets);
  };
}

MeanSquaredError::MeanSquaredError() {
  mean = [](const at::Tensor& predictions, const at::Tensor& targets) {
    check_same_sizes("mean squared error", predictions, targets);
    return at::mse_loss(predictions, targets);
  };
}

BinaryAccuracy::BinaryAccuracy(double threshold) {
  name = "accuracy";
  mean = [threshold](const at::Tensor& predictions, const at::Tensor& targets) {
    check_same_sizes("binary accuracy", predictions, targets);
    return share_of(predictions.gt(threshold).eq(targets.gt(0.5)));
  };
}

SparseCategoricalAccuracy::SparseCategoricalAccuracy() {
  name = "accuracy";
  mean = [](const at::Tensor& predictions, const at::Tensor& targets) {
    check_classes("categorical accuracy", predictions, targets);
    return share_of(predictions.argmax(1).eq(targets));
  };
}

MeanAbsoluteError::MeanAbsoluteError() {
  name = "mean_absolute_error";
  mean = [](const at::Tensor& predictions, const at::Tensor& targets) {
    check_same_sizes("mean absolute error", predictions, targets);
    return (predictions - targets).abs().mean();
  };
}

}  // namespace trireme

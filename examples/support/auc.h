// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How well scores part clicks from the rest: the area under the ROC curve, which is the share of
// all pairs of a click and a non-click in which the click has the higher score; a tie is half a
// pair. 0.5 is chance.
//
//   Auc auc;
//   for (...) auc.add(model->forward(...), batch.labels);
//   const at::Tensor theirs = ...;  // another worker's samples()
//   auc.add(theirs.select(1, 0), theirs.select(1, 1));
//   std::printf("%.4f\n", auc.value());
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

namespace trireme::examples {

class Auc {
 public:
  // scores: f32 [B], the higher the likelier; labels: f32 [B], 1 for a click and 0 for none. Throws
  // ShapeError where they do not fit, DataError for a score that is not a number or another label.
  void add(const at::Tensor& scores, const at::Tensor& labels);
  // All that was added, f32 [N, 2]: score and label; what add() of another worker takes.
  at::Tensor samples() const;

  // Exact, whatever the order of what was added. Throws DataError where there is no click, or
  // nothing else.
  double value() const;

 private:
  std::vector<float> clicks_;  // their scores
  std::vector<float> others_;
};

}  // namespace trireme::examples

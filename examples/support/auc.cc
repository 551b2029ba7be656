// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/auc.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "trireme/base/error.h"

namespace trireme::examples {

void Auc::add(const at::Tensor& scores, const at::Tensor& labels) {
  if (scores.dim() != 1 || labels.dim() != 1 || scores.size(0) != labels.size(0) ||
      scores.scalar_type() != at::kFloat || labels.scalar_type() != at::kFloat) {
    throw_error<ShapeError>(
        "scores with {} dims and {} elements, labels with {} and {}: one f32 score for each f32 "
        "label would be right",
        scores.dim(), scores.numel(), labels.dim(), labels.numel());
  }
  const at::Tensor all_scores = scores.detach().contiguous(), all_labels = labels.contiguous();
  const auto* score = all_scores.data_ptr<float>();
  const auto* label = all_labels.data_ptr<float>();
  for (std::int64_t i = 0; i < scores.size(0); ++i) {
    if (!std::isfinite(score[i])) {
      throw_error<DataError>("score {} is {}: the model has lost its way", i, score[i]);
    }
    if (label[i] != 0 && label[i] != 1) {
      throw_error<DataError>("label {} is {}, and 0 or 1 would be right", i, label[i]);
    }
    (label[i] == 1 ? clicks_ : others_).push_back(score[i]);
  }
}

at::Tensor Auc::samples() const {
  at::Tensor samples =
      at::empty({static_cast<std::int64_t>(clicks_.size() + others_.size()), 2}, at::kFloat);
  auto* out = samples.data_ptr<float>();
  for (const float score : clicks_) *out++ = score, *out++ = 1;
  for (const float score : others_) *out++ = score, *out++ = 0;
  return samples;
}

double Auc::value() const {
  if (clicks_.empty() || others_.empty()) {
    throw_error<DataError>("{} clicks and {} others: an area needs one of each at least",
                           clicks_.size(), others_.size());
  }
  std::vector<float> clicks = clicks_, others = others_;
  std::sort(clicks.begin(), clicks.end());
  std::sort(others.begin(), others.end());
  std::uint64_t half_pairs = 0;  // 2 for an other below the click, 1 for a tie
  auto below = others.begin(), not_above = others.begin();
  for (const float score : clicks) {
    while (below != others.end() && *below < score) ++below;
    while (not_above != others.end() && *not_above <= score) ++not_above;
    half_pairs +=
        static_cast<std::uint64_t>((below - others.begin()) + (not_above - others.begin()));
  }
  return static_cast<double>(half_pairs) / 2 / static_cast<double>(clicks.size()) /
         static_cast<double>(others.size());
}

}  // namespace trireme::examples

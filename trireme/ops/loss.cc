// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/loss.h"

#include <ATen/ops/cross_entropy_loss.h>

namespace trireme::ops {

at::Tensor cross_entropy(const at::Tensor& logits_NV, const at::Tensor& targets_N) {
  const auto wide = logits_NV.scalar_type() == at::kDouble ? logits_NV : logits_NV.to(at::kFloat);
  return at::cross_entropy_loss(wide, targets_N);
}

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Losses.
#pragma once

#include <ATen/core/Tensor.h>

namespace trireme::ops {

// Mean of -log softmax(logits)[target] over rows, in nats. logits_NV: [N, V], floating;
// targets_N: i64 [N], each in [0, V). Computed in f32 at least; returns a scalar of that dtype.
// Gradient: logits, in their dtype.
at::Tensor cross_entropy(const at::Tensor& logits_NV, const at::Tensor& targets_N);

}  // namespace trireme::ops

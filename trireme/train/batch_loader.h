// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From token shards to the tensors of one micro-batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trireme/data/sampler.h"
#include "trireme/data/token_shards.h"

namespace trireme {

// Legend: B sequences, T tokens.
struct MicroBatch {
  at::Tensor inputs_BT;   // i64
  at::Tensor targets_BT;  // i64: inputs shifted by one
};

// Reads global samples [first, first + count), one a row. A pure function of its arguments.
MicroBatch load_micro_batch(const TokenShards& shards, const Sampler& sampler, std::int64_t context,
                            std::int64_t first, std::int64_t count);

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/batch_loader.h"

#include <ATen/ops/empty.h>

namespace trireme {

MicroBatch load_micro_batch(const TokenShards& shards, const Sampler& sampler, std::int64_t context,
                            std::int64_t first, std::int64_t count) {
  const at::Tensor tokens = at::empty({count, context + 1}, at::TensorOptions().dtype(at::kLong));
  auto* row = tokens.data_ptr<std::int64_t>();
  for (std::int64_t sample = first; sample < first + count; ++sample, row += context + 1) {
    shards.read(sampler.token_offset(sample), {row, static_cast<std::size_t>(context + 1)});
  }
  return {tokens.narrow(1, 0, context).contiguous(), tokens.narrow(1, 1, context).contiguous()};
}

}  // namespace trireme

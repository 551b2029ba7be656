// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/batch_loader.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "trireme/ops/attention.h"

namespace trireme {

std::optional<TokenId> document_separator(const nn::ModelConfig& config,
                                          const Tokenizer& tokenizer) {
  return config.separate_documents ? std::optional(tokenizer.end_of_text()) : std::nullopt;
}

BatchLoader::BatchLoader(const TokenShards& shards, const Sampler& sampler, std::int64_t context,
                         std::optional<TokenId> separator)
    : shards_(shards), sampler_(sampler), context_(context), separator_(separator) {}

MicroBatch BatchLoader::load(std::int64_t first, std::int64_t count) const {
  const at::Tensor tokens = at::empty({count, context_ + 1}, at::TensorOptions().dtype(at::kLong));
  auto* row = tokens.data_ptr<std::int64_t>();
  for (std::int64_t sample = first; sample < first + count; ++sample, row += context_ + 1) {
    shards_.read(sampler_.token_offset(sample), {row, static_cast<std::size_t>(context_ + 1)});
  }
  MicroBatch batch{tokens.narrow(1, 0, context_).contiguous(),
                   tokens.narrow(1, 1, context_).contiguous(),
                   {},
                   first};
  if (separator_) batch.document_starts_BT = ops::document_starts(batch.inputs_BT, *separator_);
  return batch;
}

MicroBatch BatchLoader::shape(std::int64_t first, std::int64_t count) const {
  if (separator_) return load(first, count);
  const at::Tensor none = at::zeros({count, context_}, at::TensorOptions().dtype(at::kLong));
  return {none, none, {}, first};
}

}  // namespace trireme

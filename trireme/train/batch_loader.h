// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From token shards to the tensors of one micro-batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "trireme/data/sampler.h"
#include "trireme/data/token_shards.h"
#include "trireme/data/tokenizer.h"
#include "trireme/nn/model_config.h"

namespace trireme {

// What keeps the documents of a sample apart: the end_of_text before each, where the model asks for
// it (separate_documents).
std::optional<TokenId> document_separator(const nn::ModelConfig& config,
                                          const Tokenizer& tokenizer);

// Legend: B sequences, T tokens.
struct MicroBatch {
  at::Tensor inputs_BT;                // i64
  at::Tensor targets_BT;               // i64: inputs shifted by one
  at::Tensor document_starts_BT = {};  // ops::document_starts(); undefined: not asked for
  std::int64_t first_sample = 0;       // of the first row; the others follow it
};

// Constant after construction; any thread may call it.
class BatchLoader {
 public:
  // shards must outlive it. separator: the token that documents begin with, to keep them apart;
  // none: a sequence is one document.
  BatchLoader(const TokenShards& shards, const Sampler& sampler, std::int64_t context,
              std::optional<TokenId> separator);

  // Global samples [first, first + count), one a row. A pure function of its arguments.
  MicroBatch load(std::int64_t first, std::int64_t count) const;
  // The same without the tokens, zeros in their place: for who needs to know the shapes alone.
  // Nothing is read, but where documents are kept apart: then it is load().
  MicroBatch shape(std::int64_t first, std::int64_t count) const;

 private:
  const TokenShards& shards_;
  Sampler sampler_;
  std::int64_t context_;
  std::optional<TokenId> separator_;
};

}  // namespace trireme

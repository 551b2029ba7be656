// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Loss on held-out tokens, and what a model that knows only the frequencies of tokens would reach
// on the same tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "trireme/comm/group.h"
#include "trireme/data/sampler.h"
#include "trireme/data/token_shards.h"
#include "trireme/data/tokenizer.h"
#include "trireme/train/batch_loader.h"

namespace trireme {

struct Evaluation {
  double loss = 0;             // nats per token
  double unigram_entropy = 0;  // nats per token, of the frequencies of the same tokens
  std::int64_t tokens = 0;
  double perplexity() const;
};

struct EvaluatorOptions {
  std::int64_t micro_batch_size = 8;
  std::int64_t max_micro_batches = 16;
  std::optional<TokenId> separator = {};  // see BatchLoader
};

// Constant after construction. The same samples at each call, in text order from the start of the
// split.
class Evaluator {
 public:
  // shards must outlive it. Throws DataError when not one sample fits.
  Evaluator(const TokenShards& shards, std::int64_t context, const EvaluatorOptions& options);

  // Mean loss of a micro-batch. Called without gradients, as often on each rank, so that it may
  // communicate.
  using Loss = std::function<double(const MicroBatch&)>;

  // Collective over the group, blocking: the micro-batches are shared out, the result is the same
  // on all ranks and does not depend on their number.
  Evaluation run(const Loss& loss, Group& group) const;

 private:
  std::int64_t context_;
  EvaluatorOptions options_;
  Sampler sampler_;
  BatchLoader loader_;
  std::int64_t samples_;
  double unigram_entropy_;
};

}  // namespace trireme

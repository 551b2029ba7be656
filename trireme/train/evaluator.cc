// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/evaluator.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

namespace trireme {
namespace {

// Entropy of the frequencies of the targets of samples [0, samples).
double target_entropy(const TokenShards& shards, const Sampler& sampler, std::int64_t context,
                      std::int64_t samples) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(shards.vocab_size()), 0);
  std::vector<std::int64_t> row(static_cast<std::size_t>(context));
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    shards.read(sampler.token_offset(sample) + 1, row);
    for (const std::int64_t token : row) ++counts[static_cast<std::size_t>(token)];
  }
  const auto total = static_cast<double>(samples * context);
  double entropy = 0;
  for (const std::int64_t count : counts) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / total;
    entropy -= p * std::log(p);
  }
  return entropy;
}

}  // namespace

double Evaluation::perplexity() const { return std::exp(loss); }

Evaluator::Evaluator(const TokenShards& shards, std::int64_t context,
                     const EvaluatorOptions& options)
    : context_(context),
      options_(options),
      sampler_(shards.num_tokens(), context, 0, false),
      loader_(shards, sampler_, context, options.separator),
      samples_(std::min(sampler_.samples_per_epoch(),
                        options.micro_batch_size * options.max_micro_batches)),
      unigram_entropy_(target_entropy(shards, sampler_, context, samples_)) {}

Evaluation Evaluator::run(const Loss& loss, Group& group) const {
  const c10::NoGradGuard no_grad;
  const std::int64_t size = options_.micro_batch_size;
  const std::int64_t micro_batches = (samples_ + size - 1) / size;
  // Summed loss by micro-batch, zero where another rank computes it.
  std::vector<double> losses(static_cast<std::size_t>(micro_batches), 0.0);
  for (std::int64_t round = 0; round < micro_batches; round += group.size()) {
    // Who has none left computes the last once more.
    const std::int64_t m = std::min(round + group.rank(), micro_batches - 1);
    const std::int64_t count = std::min(size, samples_ - m * size);
    const double mean = loss(loader_.load(m * size, count));
    if (m != round + group.rank()) continue;
    losses[static_cast<std::size_t>(m)] = mean * static_cast<double>(count * context_);
  }
  group.all_reduce(buffer_of(std::span(losses)));  // exact: all but one summand are zero
  Evaluation result;
  result.tokens = samples_ * context_;
  result.loss =
      std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(result.tokens);
  result.unigram_entropy = unigram_entropy_;
  return result;
}

}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/sampler.h"

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/base/random.h"

namespace trireme {
namespace {

// Keeps the sampler's random streams (one an epoch) apart from others of the same seed.
constexpr std::uint64_t kEpochStreams = 0x73616D706C657200;  // "sampler" and a zero byte

}  // namespace

Sampler::Sampler(std::int64_t num_tokens, std::int64_t context, std::uint64_t seed, bool shuffle)
    : context_(context), samples_per_epoch_(0), seed_(seed), shuffle_(shuffle) {
  TRIREME_CHECK_LE(std::int64_t{1}, context, "tokens in a sample");
  if (num_tokens < context + 1) {
    throw_error<DataError>(
        "the text has {} tokens, but one sample needs {} (context {} and one more); give more text "
        "or a shorter context",
        num_tokens, context + 1, context);
  }
  samples_per_epoch_ = (num_tokens - 1) / context;
}

std::int64_t Sampler::token_offset(std::int64_t sample) const {
  TRIREME_CHECK_LE(std::int64_t{0}, sample, "sample number");
  const std::int64_t epoch = sample / samples_per_epoch_;
  const std::int64_t index = sample % samples_per_epoch_;
  if (!shuffle_) {
    return index * context_;
  }
  const RandomPermutation order(static_cast<std::uint64_t>(samples_per_epoch_), seed_,
                                kEpochStreams + static_cast<std::uint64_t>(epoch));
  return static_cast<std::int64_t>(order(static_cast<std::uint64_t>(index))) * context_;
}

}  // namespace trireme

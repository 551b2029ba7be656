// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Which tokens are sample number n. A pure function of (seed, n): resumable at any sample, on any
// number of workers.
//
// A split of N tokens holds S = (N - 1) / context samples: sample k is tokens [k * context, (k + 1)
// * context], inputs the first context of them, targets the last. Epoch e visits all S in an order
// of its own (RandomPermutation keyed by seed and e).
//
//   const Sampler sampler(shards.num_tokens(), config.context, seed);
//   sampler.token_offset(n)       // n = 0, 1, 2, ... over all epochs
#pragma once

#include <cstdint>

namespace trireme {

// Constant after construction; any thread may call it.
class Sampler {
 public:
  // Throws DataError when not even one sample fits, with both numbers.
  Sampler(std::int64_t num_tokens, std::int64_t context, std::uint64_t seed, bool shuffle = true);

  std::int64_t samples_per_epoch() const { return samples_per_epoch_; }
  // First token of global sample number sample >= 0; context + 1 tokens are there from it.
  std::int64_t token_offset(std::int64_t sample) const;

 private:
  std::int64_t context_;
  std::int64_t samples_per_epoch_;
  std::uint64_t seed_;
  bool shuffle_;
};

}  // namespace trireme

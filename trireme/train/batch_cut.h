// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How Model (model.h) cuts samples into batches, and these into micro-batches.
#pragma once

#include <algorithm>
#include <cstdint>

#include "trireme/base/error.h"

namespace trireme {

// Positions [begin, end) in a pass over samples.
struct Positions {
  std::int64_t begin;
  std::int64_t end;
  std::int64_t count() const { return end - begin; }
};

struct Cut {
  std::int64_t samples;
  std::int64_t batch_size;
  std::int64_t micro_batches;  // of a batch

  std::int64_t batches() const { return (samples + batch_size - 1) / batch_size; }
  Positions batch(std::int64_t b) const {
    return {b * batch_size, std::min(samples, (b + 1) * batch_size)};
  }
  // Empty ones are the last.
  Positions part(std::int64_t b, std::int64_t m) const {
    const Positions whole = batch(b);
    const std::int64_t shortest = whole.count() / micro_batches;
    const std::int64_t longer = whole.count() % micro_batches;
    const std::int64_t begin = whole.begin + m * shortest + std::min(m, longer);
    return {begin, begin + shortest + (m < longer ? 1 : 0)};
  }
};

// Throws ConfigError: no samples, or batches of none.
inline Cut checked_cut(std::int64_t samples, std::int64_t batch_size, std::int64_t micro_batches) {
  if (samples < 1) throw_error<ConfigError>("there are no samples");
  if (batch_size < 1) throw_error<ConfigError>("batches of {} samples", batch_size);
  return {samples, batch_size, micro_batches};
}

}  // namespace trireme

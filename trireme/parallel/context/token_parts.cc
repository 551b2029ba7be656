// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/context/token_parts.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

namespace trireme {

TokenParts token_parts(std::int64_t tokens, int rank, int ranks) {
  const std::int64_t chunks = 2 * std::int64_t{ranks};
  const auto chunk = [&](std::int64_t c) {
    return TokenRange{tokens * c / chunks, tokens * (c + 1) / chunks};
  };
  return {chunk(rank), chunk(chunks - 1 - rank)};
}

std::int64_t num_tokens(const TokenParts& parts) { return parts[0].size() + parts[1].size(); }

at::Tensor token_positions(const TokenParts& parts) {
  return at::cat({at::arange(parts[0].begin, parts[0].end, at::kLong),
                  at::arange(parts[1].begin, parts[1].end, at::kLong)});
}

at::Tensor own_tokens(const at::Tensor& x, std::int64_t dim, const TokenParts& parts) {
  return at::cat({x.narrow(dim, parts[0].begin, parts[0].size()),
                  x.narrow(dim, parts[1].begin, parts[1].size())},
                 dim);
}

}  // namespace trireme

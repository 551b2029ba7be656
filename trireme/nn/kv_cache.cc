// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/kv_cache.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "trireme/base/error.h"

namespace trireme::nn {
namespace {

// Ensures that buffer [B, K, capacity, D] has room behind its first `filled` tokens for those of
// fresh, writes them there, and returns the view of all.
at::Tensor append_tokens(at::Tensor& buffer, const at::Tensor& fresh, std::int64_t filled) {
  const std::int64_t needed = filled + fresh.size(2);
  if (!buffer.defined() || buffer.size(2) < needed) {
    constexpr std::int64_t kSmallest = 64;
    const std::int64_t capacity = std::max({kSmallest, needed, 2 * filled});
    auto grown =
        at::empty({fresh.size(0), fresh.size(1), capacity, fresh.size(3)}, fresh.options());
    if (filled > 0) {
      grown.narrow(2, 0, filled).copy_(buffer.narrow(2, 0, filled));
    }
    buffer = grown;
  }
  buffer.narrow(2, filled, fresh.size(2)).copy_(fresh);
  return buffer.narrow(2, 0, needed);
}

}  // namespace

std::pair<at::Tensor, at::Tensor> KvCache::append(std::size_t layer, const at::Tensor& k_BKTD,
                                                  const at::Tensor& v_BKTD) {
  if (keys.size() <= layer) {
    keys.resize(layer + 1);
    values.resize(layer + 1);
  }
  const at::Tensor& seen = keys[layer];
  if (seen.defined() && (seen.size(0) != k_BKTD.size(0) || seen.size(1) != k_BKTD.size(1) ||
                         seen.size(3) != k_BKTD.size(3))) {
    throw_error<ShapeError>(
        "the cache holds keys of [{}, {}, {} tokens, {}] and cannot take [{}]: use one KvCache per "
        "model and batch of sequences",
        seen.size(0), seen.size(1), tokens, seen.size(3), fmt::join(k_BKTD.sizes(), ", "));
  }
  return {append_tokens(keys[layer], k_BKTD, tokens), append_tokens(values[layer], v_BKTD, tokens)};
}

}  // namespace trireme::nn

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/context/context_arguments.h"

#include <ATen/TensorOperators.h>
#include <fmt/ranges.h>

#include <string>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/context/token_parts.h"

namespace trireme::detail {
namespace {

std::string text_of(const at::Tensor& x) {
  return fmt::format("{} [{}] on {}", c10::toString(x.scalar_type()), fmt::join(x.sizes(), ", "),
                     x.device().str());
}

void check_starts(const at::Tensor& starts, at::IntArrayRef sizes, const TokenParts& parts,
                  const Group& cp) {
  if (starts.scalar_type() != at::kLong || starts.sizes() != sizes || !starts.is_cpu()) {
    throw_error<ShapeError>(
        "rank {} of group {}: document starts of its tokens must be i64 [{}]; got {}", cp.rank(),
        cp.name(), fmt::join(sizes, ", "), text_of(starts));
  }
  const at::Tensor known = token_positions(parts).sub(starts);
  if (known.lt(0).logical_or(starts.lt(0)).any().item<bool>()) {
    throw_error<ShapeError>(
        "rank {} of group {}: a document must start at one of its tokens, not after them, counted "
        "in places of the whole sequence",
        cp.rank(), cp.name());
  }
}

}  // namespace

void check_context_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             std::int64_t tokens, const ops::AttentionMask& mask, const Group& cp) {
  const TokenParts parts = token_parts(tokens, cp.rank(), cp.size());
  const std::int64_t T = num_tokens(parts);
  const bool fits = q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() &&
                    q.size(0) == k.size(0) && q.size(3) == k.size(3) && k.size(1) > 0 &&
                    q.size(2) % k.size(1) == 0 && q.size(1) == T && k.size(2) == T &&
                    q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type() &&
                    q.is_cpu() && k.is_cpu() && v.is_cpu();
  if (!fits) {
    throw_error<ShapeError>(
        "rank {} of group {} has {} of {} tokens: attention across ranks needs q [B, {}, H, D] and "
        "k, v [B, K, {}, D] of one dtype on the CPU, with K dividing H; got q {}, k {}, v {}",
        cp.rank(), cp.name(), T, tokens, T, T, text_of(q), text_of(k), text_of(v));
  }
  if (mask.window < 0) {
    throw_error<ShapeError>("an attention window of {} keys: at least 1, or 0 for all",
                            mask.window);
  }
  const at::Tensor& starts = mask.document_starts_BS;
  if (starts.defined()) check_starts(starts, {q.size(0), T}, parts, cp);
}

}  // namespace trireme::detail

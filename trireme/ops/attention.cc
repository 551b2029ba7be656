// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/attention.h"

#include <ATen/ops/_softmax.h>
#include <ATen/ops/add.h>
#include <ATen/ops/full.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>

#include "trireme/base/error.h"
#include "trireme/ops/linear.h"

namespace trireme::ops {
namespace {

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const bool fits = q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() &&
                    q.size(0) == k.size(0) && q.size(3) == k.size(3) && k.size(1) > 0 &&
                    q.size(2) % k.size(1) == 0 && q.size(1) <= k.size(2);
  if (!fits) {
    throw_error<ShapeError>(
        "attention needs q [B, T, H, D] and k, v [B, K, S, D] with K dividing H and T <= S; got q "
        "[{}], k [{}], v [{}]",
        fmt::join(q.sizes(), ", "), fmt::join(k.sizes(), ", "), fmt::join(v.sizes(), ", "));
  }
}

// [G T, S]: 0 where query t may see the key, -inf where not; the same for each of a group's heads.
at::Tensor causal_mask(std::int64_t groups, std::int64_t queries, std::int64_t keys,
                       const at::TensorOptions& options) {
  const auto mask = at::full({queries, keys}, -std::numeric_limits<double>::infinity(), options)
                        .triu_(keys - queries + 1);
  return mask.expand({groups, queries, keys}).reshape({groups * queries, keys});
}

}  // namespace

// The heads of a group share their keys, so the group's queries are stacked into one matrix of G T
// rows: grouped-query attention becomes K larger products instead of H small ones, and no key is
// repeated.
at::Tensor causal_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKSD,
                            const at::Tensor& v_BKSD) {
  check_shapes(q_BTHD, k_BKSD, v_BKSD);
  const auto B = q_BTHD.size(0), T = q_BTHD.size(1), H = q_BTHD.size(2), D = q_BTHD.size(3);
  const auto K = k_BKSD.size(1), S = k_BKSD.size(2), G = H / K;
  const double scale = 1.0 / std::sqrt(static_cast<double>(D));

  const auto q = q_BTHD.transpose(1, 2).reshape({B * K, G * T, D});
  const auto k = k_BKSD.reshape({B * K, S, D});
  const auto v = v_BKSD.reshape({B * K, S, D});
  const auto mask = causal_mask(G, T, S, q.options()).unsqueeze(0);
  const auto scores = at::add(mask, batched_product(q, k.transpose(1, 2)), scale);
  const auto out = batched_product(at::_softmax(scores, -1, false), v);
  return out.view({B, H, T, D}).transpose(1, 2).contiguous();
}

}  // namespace trireme::ops

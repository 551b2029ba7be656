// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/attention_part.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <string>

#include "trireme/base/error.h"
#include "trireme/ops/attention_views.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::ScalarType wide_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

std::string text_of(const at::Tensor& x) {
  if (!x.defined()) return "none";
  return fmt::format("{} [{}]", c10::toString(x.scalar_type()), fmt::join(x.sizes(), ", "));
}

void check_inputs(const AttentionInputs& inputs, const AttentionPart& part) {
  const at::Tensor &q = inputs.q_BTHD, &k = inputs.k_BKSD, &v = inputs.v_BKSD;
  const bool fits = q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() &&
                    q.size(0) == k.size(0) && q.size(3) == k.size(3) && k.size(1) > 0 &&
                    q.size(2) % k.size(1) == 0 && q.scalar_type() == k.scalar_type() &&
                    q.scalar_type() == v.scalar_type();
  if (!fits) {
    throw_error<ShapeError>(
        "a part of attention needs q [B, T, H, D] and k, v [B, K, S, D] of one dtype, with K "
        "dividing H; got q {}, k {}, v {}",
        text_of(q), text_of(k), text_of(v));
  }
  if (part.window < 0 || part.query_begin < 0 || part.key_begin < 0) {
    throw_error<ShapeError>(
        "queries from place {}, keys from place {} and a window of {}: none may be negative",
        part.query_begin, part.key_begin, part.window);
  }
  const at::Tensor& starts = part.document_starts_BT;
  if (starts.defined() &&
      (starts.scalar_type() != at::kLong || starts.sizes() != q.sizes().slice(0, 2))) {
    throw_error<ShapeError>("document starts of the queries must be i64 [{}, {}]; got {}",
                            q.size(0), q.size(1), text_of(starts));
  }
}

void check_wide(const at::Tensor& sum, at::IntArrayRef sizes, at::ScalarType dtype,
                const char* what) {
  const bool fits = sum.defined() && sum.scalar_type() == dtype && sum.sizes() == sizes &&
                    (sum.numel() == 0 || sum.stride(-1) == 1);
  if (fits) return;
  throw_error<ShapeError>("{} must be {} [{}], the last dim contiguous; got {}", what,
                          c10::toString(dtype), fmt::join(sizes, ", "), text_of(sum));
}

void check_log_sums(const at::Tensor& q, const at::Tensor& log_sums) {
  check_wide(log_sums, {q.size(0), q.size(2), q.size(1)}, wide_dtype(q), "attention's log-sums");
  if (!log_sums.is_contiguous()) {
    throw_error<ShapeError>("attention's log-sums must be contiguous");
  }
}

bool takes_kernels(const AttentionInputs& inputs, const AttentionPart& part) {
  const at::Tensor& q = inputs.q_BTHD;
  return q.is_cpu() && has_kernels(q, inputs.k_BKSD, inputs.v_BKSD, part.document_starts_BT) &&
         q.size(3) <= kMaxHeadWidth;
}

double scale_of(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(3))); }

// starts: part's, the last dim contiguous; it outlives the shape.
AttentionShape shape_of(const AttentionInputs& inputs, const AttentionPart& part,
                        const at::Tensor& starts) {
  const at::Tensor &q = inputs.q_BTHD, &k = inputs.k_BKSD;
  return {.element = element_of(q),
          .sequences = q.size(0),
          .queries = q.size(1),
          .keys = k.size(2),
          .heads = q.size(2),
          .kv_heads = k.size(1),
          .head_width = q.size(3),
          .scale = static_cast<float>(scale_of(q)),
          .query_begin = part.query_begin,
          .key_begin = part.key_begin,
          .window = part.window,
          .document_starts = starts.defined() ? starts.data_ptr<std::int64_t>() : nullptr,
          .document_stride = starts.defined() ? starts.stride(0) : 0};
}

at::Tensor rows_contiguous(const at::Tensor& starts) {
  return starts.defined() ? last_dim_contiguous(starts) : starts;
}

// ---- by LibTorch's operations, with the heads of a group as one dim beside their kv head

// [B, T, H, D] as wide [B, K, H / K, T, D].
at::Tensor grouped(const at::Tensor& x_BTHD, std::int64_t kv_heads) {
  const auto B = x_BTHD.size(0), T = x_BTHD.size(1), H = x_BTHD.size(2), D = x_BTHD.size(3);
  return x_BTHD.to(wide_dtype(x_BTHD)).transpose(1, 2).reshape({B, kv_heads, H / kv_heads, T, D});
}

at::Tensor ungrouped(const at::Tensor& x) { return x.flatten(1, 2).transpose(1, 2); }

// [B, K, S, D] as wide [B, K, 1, S, D].
at::Tensor shared_by_group(const at::Tensor& x_BKSD) {
  return x_BKSD.to(wide_dtype(x_BKSD)).unsqueeze(2);
}

// [B, K, H / K, T, S]; minus infinity where a query does not see the key.
at::Tensor visible_scores(const AttentionInputs& inputs, const AttentionPart& part) {
  const at::Tensor& q = inputs.q_BTHD;
  const auto T = q.size(1), K = inputs.k_BKSD.size(1), S = inputs.k_BKSD.size(2);
  const auto indices = q.options().dtype(at::kLong).requires_grad(false);
  const at::Tensor keys = at::arange(part.key_begin, part.key_begin + S, indices).unsqueeze(0);
  const at::Tensor places =
      at::arange(part.query_begin, part.query_begin + T, indices).unsqueeze(1);
  at::Tensor seen = keys.le(places);
  if (part.window > 0) seen = seen.logical_and(keys.gt(places - part.window));
  seen = seen.unsqueeze(0);
  if (part.document_starts_BT.defined()) {
    seen = seen.logical_and(keys.unsqueeze(0).ge(part.document_starts_BT.unsqueeze(2)));
  }
  const at::Tensor scores =
      at::matmul(grouped(q, K), shared_by_group(inputs.k_BKSD).transpose(-1, -2)) * scale_of(q);
  return scores.masked_fill(seen.unsqueeze(1).unsqueeze(1).logical_not(), -kInfinity);
}

// e^(x - log_sums), 0 where the sum was 0.
at::Tensor share_of(const at::Tensor& x, const at::Tensor& log_sums) {
  return (x - log_sums.masked_fill(log_sums.eq(-kInfinity), kInfinity)).exp();
}

void add_composed(const AttentionInputs& inputs, const AttentionPart& part, PartialAttention& sum) {
  const at::Tensor scores = visible_scores(inputs, part);
  const at::Tensor own = at::logsumexp(scores, -1);
  const at::Tensor out =
      ungrouped(at::matmul(share_of(scores, own.unsqueeze(-1)), shared_by_group(inputs.v_BKSD)));
  const at::Tensor own_BHT = own.flatten(1, 2);
  const at::Tensor both = at::logaddexp(sum.log_sums_BHT, own_BHT);
  const auto weight = [&](const at::Tensor& log_sums) {
    return share_of(log_sums, both).transpose(1, 2).unsqueeze(-1);
  };
  sum.out_BTHD.mul_(weight(sum.log_sums_BHT)).add_(out * weight(own_BHT));
  sum.log_sums_BHT.copy_(both);
}

void add_composed_gradients(const AttentionInputs& inputs, const AttentionPart& part,
                            const PartialAttention& attention, const at::Tensor& out_grad_BTHD,
                            const AttentionGradientSums& sums) {
  const auto K = inputs.k_BKSD.size(1);
  const at::Tensor q = grouped(inputs.q_BTHD, K), out_grad = grouped(out_grad_BTHD, K);
  const at::Tensor scores = visible_scores(inputs, part);
  const at::Tensor log_sums = attention.log_sums_BHT.view(scores.sizes().slice(0, 4));
  const at::Tensor p = share_of(scores, log_sums.unsqueeze(-1));
  const at::Tensor dp = at::matmul(out_grad, shared_by_group(inputs.v_BKSD).transpose(-1, -2));
  const at::Tensor dots = (out_grad * grouped(attention.out_BTHD, K)).sum(-1, /*keepdim=*/true);
  const at::Tensor ds = p * (dp - dots) * scale_of(inputs.q_BTHD);
  sums.q_BTHD.add_(ungrouped(at::matmul(ds, shared_by_group(inputs.k_BKSD))));
  sums.k_BKSD.add_(at::matmul(ds.transpose(-1, -2), q).sum(2));
  sums.v_BKSD.add_(at::matmul(p.transpose(-1, -2), out_grad).sum(2));
}

}  // namespace

PartialAttention no_attention(const at::Tensor& q) {
  if (q.dim() != 4) {
    throw_error<ShapeError>("queries of attention must be [B, T, H, D]; got {}", text_of(q));
  }
  const auto wide = q.options().dtype(wide_dtype(q)).requires_grad(false);
  return {at::zeros(q.sizes(), wide),
          at::full({q.size(0), q.size(2), q.size(1)}, -kInfinity, wide)};
}

bool sees_any(const AttentionPart& part, std::int64_t queries, std::int64_t keys) {
  if (queries == 0 || keys == 0) return false;
  const std::int64_t last_key = part.key_begin + keys - 1;
  const at::Tensor& starts = part.document_starts_BT;
  const at::Tensor rows = starts.defined() ? starts.to(at::kCPU).contiguous() : starts;
  const AttentionShape shape{
      .queries = queries,
      .query_begin = part.query_begin,
      .window = part.window,
      .document_starts = rows.defined() ? rows.data_ptr<std::int64_t>() : nullptr,
      .document_stride = queries};
  for (std::int64_t b = 0; b < (rows.defined() ? rows.size(0) : 1); ++b) {
    for (std::int64_t t = 0; t < queries; ++t) {
      const bool begun = part.query_begin + t >= part.key_begin;
      if (begun && first_visible(shape, b, t) <= last_key) return true;
    }
  }
  return false;
}

void add_attention(const AttentionInputs& inputs, const AttentionPart& part,
                   PartialAttention& sum) {
  check_inputs(inputs, part);
  check_wide(sum.out_BTHD, inputs.q_BTHD.sizes(), wide_dtype(inputs.q_BTHD), "attention's out");
  check_log_sums(inputs.q_BTHD, sum.log_sums_BHT);
  if (inputs.q_BTHD.numel() == 0 || inputs.k_BKSD.size(2) == 0) return;
  if (!takes_kernels(inputs, part)) return add_composed(inputs, part, sum);
  const AttentionInputs in{last_dim_contiguous(inputs.q_BTHD), last_dim_contiguous(inputs.k_BKSD),
                           last_dim_contiguous(inputs.v_BKSD)};
  const at::Tensor starts = rows_contiguous(part.document_starts_BT);
  const AttentionShape shape = shape_of(in, part, starts);
  const TimedPart timed("attention forward", 2 * product_flops(shape));
  attention_forward_added(shape, view_BTHD(in.q_BTHD), view_BKSD(in.k_BKSD), view_BKSD(in.v_BKSD),
                          view_BTHD(sum.out_BTHD), sum.log_sums_BHT.data_ptr<float>());
}

void add_attention_gradients(const AttentionInputs& inputs, const AttentionPart& part,
                             const PartialAttention& attention, const at::Tensor& out_grad_BTHD,
                             const AttentionGradientSums& sums) {
  const at::Tensor &q = inputs.q_BTHD, &k = inputs.k_BKSD;
  check_inputs(inputs, part);
  check_log_sums(q, attention.log_sums_BHT);
  const auto wide = wide_dtype(q);
  check_wide(sums.q_BTHD, q.sizes(), wide, "the gradient of q");
  check_wide(sums.k_BKSD, k.sizes(), wide, "the gradient of k");
  check_wide(sums.v_BKSD, k.sizes(), wide, "the gradient of v");
  for (const at::Tensor& x : {out_grad_BTHD, attention.out_BTHD}) {
    if (x.sizes() == q.sizes() && x.scalar_type() == q.scalar_type()) continue;
    throw_error<ShapeError>("attention's out and its gradient must be like the queries, {}; got {}",
                            text_of(q), text_of(x));
  }
  if (q.numel() == 0 || k.size(2) == 0) return;
  if (!takes_kernels(inputs, part)) {
    return add_composed_gradients(inputs, part, attention, out_grad_BTHD, sums);
  }
  const AttentionInputs in{last_dim_contiguous(q), last_dim_contiguous(k),
                           last_dim_contiguous(inputs.v_BKSD)};
  const at::Tensor starts = rows_contiguous(part.document_starts_BT);
  const at::Tensor out = last_dim_contiguous(attention.out_BTHD);
  const at::Tensor out_grad = last_dim_contiguous(out_grad_BTHD);
  const AttentionShape shape = shape_of(in, part, starts);
  const TimedPart timed("attention backward", 4 * product_flops(shape));
  attention_backward_added(
      shape, view_BTHD(in.q_BTHD), view_BKSD(in.k_BKSD), view_BKSD(in.v_BKSD), view_BTHD(out),
      view_BTHD(out_grad), attention.log_sums_BHT.data_ptr<float>(),
      {view_BTHD(sums.q_BTHD), view_BKSD(sums.k_BKSD), view_BKSD(sums.v_BKSD)});
}

}  // namespace trireme::ops

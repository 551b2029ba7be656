// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cummax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/ops/attention_views.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"
#include "trireme/ops/torch_version.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionMask& mask) {
  const bool fits = q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() &&
                    q.size(0) == k.size(0) && q.size(3) == k.size(3) && k.size(1) > 0 &&
                    q.size(2) % k.size(1) == 0 && q.size(1) <= k.size(2) &&
                    q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type();
  if (!fits) {
    throw_error<ShapeError>(
        "attention needs q [B, T, H, D] and k, v [B, K, S, D] of one dtype, with K dividing H and "
        "T <= S; got q {} [{}], k {} [{}], v {} [{}]",
        c10::toString(q.scalar_type()), fmt::join(q.sizes(), ", "), c10::toString(k.scalar_type()),
        fmt::join(k.sizes(), ", "), c10::toString(v.scalar_type()), fmt::join(v.sizes(), ", "));
  }
  if (mask.window < 0) {
    throw_error<ShapeError>("an attention window of {} keys: at least 1, or 0 for all",
                            mask.window);
  }
  const at::Tensor& starts = mask.document_starts_BS;
  if (!starts.defined()) return;
  const auto B = k.size(0), S = k.size(2);
  if (starts.scalar_type() != at::kLong || starts.sizes() != at::IntArrayRef({B, S})) {
    throw_error<ShapeError>("document starts must be i64 [{}, {}]; got {} [{}]", B, S,
                            c10::toString(starts.scalar_type()), fmt::join(starts.sizes(), ", "));
  }
  const at::Tensor known = at::arange(S, starts.options()).sub(starts);
  if (known.lt(0).logical_or(starts.lt(0)).any().item<bool>()) {
    throw_error<ShapeError>("a document must start at one of its tokens, not after them");
  }
}

// [B or 1, 1, 1, T, S]: whether query t may see the key.
at::Tensor visibility(const AttentionMask& mask, std::int64_t T, std::int64_t S,
                      const at::TensorOptions& options) {
  const auto indices = options.dtype(at::kLong);
  const at::Tensor keys = at::arange(S, indices).unsqueeze(0);
  const at::Tensor tokens = at::arange(S - T, S, indices).unsqueeze(1);
  at::Tensor seen = keys.le(tokens);
  if (mask.window > 0) seen = seen.logical_and(keys.gt(tokens - mask.window));
  seen = seen.unsqueeze(0);
  if (mask.document_starts_BS.defined()) {
    const at::Tensor starts = mask.document_starts_BS.narrow(1, S - T, T).unsqueeze(2);
    seen = seen.logical_and(keys.unsqueeze(0).ge(starts));
  }
  return seen.unsqueeze(1).unsqueeze(1);
}

// The same by LibTorch's operations: the heads of a group as one dim beside their kv head.
at::Tensor composed_attention(const at::Tensor& q_BTHD, const at::Tensor& k, const at::Tensor& v,
                              const AttentionMask& mask) {
  const auto B = q_BTHD.size(0), T = q_BTHD.size(1), H = q_BTHD.size(2), D = q_BTHD.size(3);
  const auto K = k.size(1), S = k.size(2);
  const auto q = q_BTHD.transpose(1, 2).reshape({B, K, H / K, T, D});
  const auto scores =
      at::matmul(q, k.unsqueeze(2).transpose(-1, -2)) / std::sqrt(static_cast<double>(D));
  const auto seen = visibility(mask, T, S, q.options());
  const auto hidden =
      scores.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
  const auto out = at::matmul(at::_softmax(hidden, -1, false), v.unsqueeze(2));
  return out.reshape({B, H, T, D}).transpose(1, 2).contiguous();
}

// LibTorch's fused kernels on a device, which hold no scores where they can: all a query sees is
// causal, or one query sees everything.
bool is_fused(const at::Tensor& q_BTHD, const at::Tensor& k, const AttentionMask& mask) {
  const auto T = q_BTHD.size(1);
  return kHasFusedAttention && q_BTHD.is_cuda() && q_BTHD.numel() > 0 && mask.window == 0 &&
         !mask.document_starts_BS.defined() && (T == k.size(2) || T == 1);
}

AttentionShape shape_of(const at::Tensor& q, const at::Tensor& k, std::int64_t window,
                        const at::Tensor& starts) {
  const std::int64_t query_begin = k.size(2) - q.size(1);
  return {
      .element = element_of(q),
      .sequences = q.size(0),
      .queries = q.size(1),
      .keys = k.size(2),
      .heads = q.size(2),
      .kv_heads = k.size(1),
      .head_width = q.size(3),
      .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.size(3)))),
      .query_begin = query_begin,
      .window = window,
      .document_starts = starts.defined() ? starts.data_ptr<std::int64_t>() + query_begin : nullptr,
      .document_stride = k.size(2)};
}

struct Attention : torch::autograd::Function<Attention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& given_q,
                            const at::Tensor& given_k, const at::Tensor& given_v,
                            std::int64_t window, const c10::optional<at::Tensor>& given_starts) {
    const at::Tensor q = last_dim_contiguous(given_q), k = last_dim_contiguous(given_k),
                     v = last_dim_contiguous(given_v);
    const at::Tensor starts = given_starts ? given_starts->contiguous() : at::Tensor();
    const AttentionShape shape = shape_of(q, k, window, starts);
    const TimedPart part("attention forward", 2 * product_flops(shape));
    const at::Tensor out = at::empty(q.sizes(), q.options().requires_grad(false));
    const at::Tensor log_sums = at::empty({shape.sequences, shape.heads, shape.queries},
                                          q.options().dtype(at::kFloat).requires_grad(false));
    attention_forward(shape, view_BTHD(q), view_BKSD(k), view_BKSD(v), view_BTHD(out),
                      log_sums.data_ptr<float>());
    context->save_for_backward({q, k, v, out, log_sums, starts});
    context->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3];
    const AttentionShape shape = shape_of(q, k, context->saved_data["window"].toInt(), saved[5]);
    const TimedPart part("attention backward", 4 * product_flops(shape));
    const at::Tensor out_grad = last_dim_contiguous(gradients[0]);
    const auto options = q.options().requires_grad(false);
    const at::Tensor q_grad = at::empty(q.sizes(), options);
    // Token by token, as the linear layers before want them.
    const std::vector<std::int64_t> kv = {k.size(0), k.size(2), k.size(1), k.size(3)};
    const at::Tensor k_grad = at::empty(kv, options).transpose(1, 2);
    const at::Tensor v_grad = at::empty(kv, options).transpose(1, 2);
    attention_backward(shape, view_BTHD(q), view_BKSD(k), view_BKSD(v), view_BTHD(out),
                       view_BTHD(out_grad), saved[4].data_ptr<float>(),
                       {view_BTHD(q_grad), view_BKSD(k_grad), view_BKSD(v_grad)});
    return {q_grad, k_grad, v_grad, at::Tensor(), at::Tensor()};
  }
};

at::Tensor fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const TimedPart part("attention forward", 2 * product_flops(shape_of(q, k, 0, {})));
  at::Tensor out_BHTD;
  if constexpr (kHasFusedAttention) {
    out_BHTD = fused_attention(q.transpose(1, 2), k, v, /*causal=*/q.size(1) > 1);
  }
  return out_BHTD.transpose(1, 2).contiguous();
}

}  // namespace

at::Tensor document_starts(const at::Tensor& tokens_BS, std::int64_t separator) {
  if (tokens_BS.dim() != 2 || tokens_BS.scalar_type() != at::kLong) {
    throw_error<ShapeError>("tokens of documents must be i64 [B, S]; got {} [{}]",
                            c10::toString(tokens_BS.scalar_type()),
                            fmt::join(tokens_BS.sizes(), ", "));
  }
  if (tokens_BS.numel() == 0) return tokens_BS.clone();
  const at::Tensor positions = at::arange(tokens_BS.size(1), tokens_BS.options());
  return std::get<0>(at::cummax(positions * tokens_BS.eq(separator), 1));
}

at::Tensor causal_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKSD,
                            const at::Tensor& v_BKSD, const AttentionMask& mask) {
  check_shapes(q_BTHD, k_BKSD, v_BKSD, mask);
  if (is_fused(q_BTHD, k_BKSD, mask)) return fused(q_BTHD, k_BKSD, v_BKSD);
  const at::Tensor& starts = mask.document_starts_BS;
  if (!q_BTHD.is_cpu() || !has_kernels(q_BTHD, k_BKSD, v_BKSD, starts) ||
      q_BTHD.size(3) > kMaxHeadWidth || q_BTHD.numel() == 0) {
    return composed_attention(q_BTHD, k_BKSD, v_BKSD, mask);
  }
  return Attention::apply(q_BTHD, k_BKSD, v_BKSD, mask.window,
                          starts.defined() ? c10::optional<at::Tensor>(starts) : c10::nullopt);
}

}  // namespace trireme::ops

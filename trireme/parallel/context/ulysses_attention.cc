// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/context/ulysses_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "trireme/comm/group.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/parallel/context/context_arguments.h"
#include "trireme/parallel/context/head_exchange.h"
#include "trireme/parallel/context/token_parts.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

using detail::cut_heads;
using detail::HeadCut;
using detail::HeadRange;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One attention's exchange, as both ways and both passes need it.
struct Plan {
  Group* group = nullptr;
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;

  HeadCut cut() const { return cut_heads(heads, kv_heads, group->size()); }

  void save(AutogradContext* context) const {
    context->saved_data["group"] = reinterpret_cast<std::int64_t>(group);
    context->saved_data["tokens"] = tokens;
    context->saved_data["heads"] = heads;
    context->saved_data["kv_heads"] = kv_heads;
  }
  static Plan saved(AutogradContext* context) {
    const auto number = [&](const char* key) { return context->saved_data[key].toInt(); };
    return {reinterpret_cast<Group*>(number("group")), number("tokens"), number("heads"),
            number("kv_heads")};
  }
};

// q, k and v, [B, T of this rank, heads, D] -> [B, tokens, heads of this rank, D].
struct ToHeads : torch::autograd::Function<ToHeads> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const Plan& plan) {
    plan.save(context);
    const HeadCut cut = plan.cut();
    return detail::tokens_to_heads({{q, cut.heads}, {k, cut.kv_heads}, {v, cut.kv_heads}},
                                   plan.tokens, *plan.group);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    ops::detail::check_first_derivative();
    const Plan plan = Plan::saved(context);
    const HeadCut cut = plan.cut();
    variable_list own = detail::heads_to_tokens(
        {{gradients[0], cut.heads}, {gradients[1], cut.kv_heads}, {gradients[2], cut.kv_heads}},
        plan.tokens, *plan.group);
    own.emplace_back();
    return own;
  }
};

// The result, [B, tokens, heads of this rank, D] -> [B, T of this rank, heads, D].
struct ToTokens : torch::autograd::Function<ToTokens> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& out, const Plan& plan) {
    plan.save(context);
    return detail::heads_to_tokens({{out, plan.cut().heads}}, plan.tokens, *plan.group)[0];
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    ops::detail::check_first_derivative();
    const Plan plan = Plan::saved(context);
    return {
        detail::tokens_to_heads({{gradients[0], plan.cut().heads}}, plan.tokens, *plan.group)[0],
        at::Tensor()};
  }
};

// Which of the rank's kv heads each of its heads reads; empty where attention itself finds it: as
// many heads for each.
std::vector<std::int64_t> uneven_groups(const Plan& plan) {
  const HeadCut cut = plan.cut();
  const auto rank = static_cast<std::size_t>(plan.group->rank());
  const HeadRange heads = cut.heads[rank], kv_heads = cut.kv_heads[rank];
  const std::int64_t group = plan.heads / plan.kv_heads;
  std::vector<std::int64_t> reads;
  bool even = heads.size() % kv_heads.size() == 0;
  for (std::int64_t i = 0; i < heads.size(); ++i) {
    reads.push_back((heads.begin + i) / group - kv_heads.begin);
    even = even && reads.back() == i / (heads.size() / kv_heads.size());
  }
  return even ? std::vector<std::int64_t>{} : reads;
}

// Document starts of this rank's tokens -> of all, [B, tokens].
at::Tensor all_starts(const at::Tensor& starts_BT, const Plan& plan) {
  const TimedPart part("context parallel");
  Group& group = *plan.group;
  const std::int64_t B = starts_BT.size(0);
  const at::Tensor blocks = at::empty({B * plan.tokens}, at::kLong);
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < group.size(); ++rank) {
    counts.push_back(B * num_tokens(token_parts(plan.tokens, rank, group.size())));
  }
  group.all_gather(buffer_of_tensor(starts_BT.contiguous()), buffer_of_tensor(blocks), counts);
  const at::Tensor all = at::empty({B, plan.tokens}, at::kLong);
  std::int64_t begin = 0;
  for (int rank = 0; rank < group.size(); ++rank) {
    const TokenParts parts = token_parts(plan.tokens, rank, group.size());
    const at::Tensor block = blocks.narrow(0, begin, counts[static_cast<std::size_t>(rank)])
                                 .view({B, num_tokens(parts)});
    all.narrow(1, parts[0].begin, parts[0].size()).copy_(block.narrow(1, 0, parts[0].size()));
    all.narrow(1, parts[1].begin, parts[1].size())
        .copy_(block.narrow(1, parts[0].size(), parts[1].size()));
    begin += counts[static_cast<std::size_t>(rank)];
  }
  return all;
}

}  // namespace

at::Tensor ulysses_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKTD,
                             const at::Tensor& v_BKTD, std::int64_t tokens,
                             const ops::AttentionMask& mask, Group& cp) {
  detail::check_context_attention(q_BTHD, k_BKTD, v_BKTD, tokens, mask, cp);
  const Plan plan{&cp, tokens, q_BTHD.size(2), k_BKTD.size(1)};
  const std::vector<std::int64_t> reads = uneven_groups(plan);
  if (cp.size() == 1) return ops::causal_attention(q_BTHD, k_BKTD, v_BKTD, mask);
  ops::AttentionMask whole = mask;
  if (mask.document_starts_BS.defined()) {
    whole.document_starts_BS = all_starts(mask.document_starts_BS, plan);
  }
  variable_list heads =
      ToHeads::apply(q_BTHD, k_BKTD.transpose(1, 2), v_BKTD.transpose(1, 2), plan);
  if (!reads.empty()) {
    const at::Tensor indices = at::tensor(reads, at::kLong);
    for (const std::size_t i : {1, 2}) heads[i] = heads[i].index_select(2, indices);
  }
  const at::Tensor out =
      ops::causal_attention(heads[0], heads[1].transpose(1, 2), heads[2].transpose(1, 2), whole);
  return ToTokens::apply(out, plan);
}

}  // namespace trireme

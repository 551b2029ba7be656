// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_assert_async.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <unordered_set>

#include "trireme/base/error.h"
#include "trireme/ops/deferred_gradients.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/row_grouping.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/taken_gradients.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void add_groups(const at::Tensor& gradient, const RowGrouping& groups, float* to) {
  add_row_groups(gradient.device(), {.element = element_of(gradient),
                                     .from = gradient.data_ptr(),
                                     .width = gradient.size(-1),
                                     .groups = groups.targets.numel(),
                                     .order = groups.order.data_ptr<std::int64_t>(),
                                     .starts = groups.starts.data_ptr<std::int64_t>(),
                                     .targets = groups.targets.data_ptr<std::int64_t>(),
                                     .to = to});
}

at::Tensor summed(const at::Tensor& parameter, const at::Tensor& gradient,
                  const RowGrouping& groups) {
  detail::GradientSum sum(parameter);
  add_groups(gradient, groups, sum.data());
  return sum.finish();
}

}  // namespace

at::Tensor detail::sum_rows(const at::Tensor& weight, const at::Tensor& gradient,
                            const at::Tensor& indices) {
  RowGrouping groups = group_by_index(indices, weight.size(0));
  const DirectGradients::RowHome* home = detail::row_home(weight);
  if (home == nullptr) return summed(weight, gradient, groups);
  groups.targets = home->place.index_select(0, groups.targets);
  if (groups.targets.numel() > 0 && groups.targets.min().item<std::int64_t>() < 0) {
    throw_error<Error>(
        "an embedding of [{}] looked up rows that the loss's graph does not have (inside of "
        "checkpoint()?): their gradients have no place",
        fmt::join(weight.sizes(), ", "));
  }
  add_groups(gradient, groups, home->sums.data_ptr<float>());
  return {};
}

namespace {

at::Tensor summed_rows(const at::Tensor& weight, const at::Tensor& gradient,
                       const at::Tensor& indices) {
  if (detail::take_rows(weight, indices, gradient)) return {};
  return detail::now_or_later(weight, {gradient, indices}, [weight, gradient, indices] {
    return detail::sum_rows(weight, gradient, indices);
  });
}

at::Tensor summed_positions(const at::Tensor& positions, const at::Tensor& gradient,
                            const at::Tensor& indices) {
  return detail::now_or_later(positions, {gradient, indices}, [positions, gradient, indices] {
    return summed(positions, gradient, group_by_position(indices));
  });
}

struct Embedding : torch::autograd::Function<Embedding> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight,
                            const at::Tensor& given, const c10::optional<at::Tensor>& positions) {
    const TimedPart part("embedding forward");
    const at::Tensor indices = given.contiguous();
    context->save_for_backward({weight, indices, positions.value_or(at::Tensor())});
    auto shape = indices.sizes().vec();
    const std::int64_t tokens = indices.size(-1);
    shape.push_back(weight.size(1));
    at::Tensor out = at::empty(shape, weight.options().requires_grad(false));
    look_up_rows(weight.device(), {.element = element_of(weight),
                                   .table = weight.data_ptr(),
                                   .positions = positions ? positions->data_ptr() : nullptr,
                                   .indices = indices.data_ptr<std::int64_t>(),
                                   .out = out.data_ptr(),
                                   .rows = indices.numel(),
                                   .tokens = tokens,
                                   .width = weight.size(1)});
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("embedding backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &weight = saved[0], &indices = saved[1], &positions = saved[2];
    const at::Tensor gradient = gradients[0].contiguous();
    at::Tensor weight_grad, positions_grad;
    if (context->needs_input_grad(0)) {
      weight_grad = summed_rows(weight, gradient, indices);
    }
    if (positions.defined() && context->needs_input_grad(2)) {
      positions_grad = summed_positions(positions, gradient, indices);
    }
    return {weight_grad, at::Tensor(), positions_grad};
  }
};

void check(const at::Tensor& weight, const at::Tensor& indices, const at::Tensor& positions) {
  if (weight.dim() != 2 || indices.scalar_type() != at::kLong || indices.dim() < 1) {
    throw_error<ShapeError>("an embedding needs a matrix and i64 indices; got [{}] and {} [{}]",
                            fmt::join(weight.sizes(), ", "), c10::toString(indices.scalar_type()),
                            fmt::join(indices.sizes(), ", "));
  }
  if (positions.defined() &&
      (positions.sizes() != at::IntArrayRef({indices.size(-1), weight.size(1)}) ||
       positions.scalar_type() != weight.scalar_type())) {
    throw_error<ShapeError>(
        "positions of {} tokens of {} [{}] must be [{}, {}]; got {} [{}]", indices.size(-1),
        c10::toString(weight.scalar_type()), fmt::join(weight.sizes(), ", "), indices.size(-1),
        weight.size(1), c10::toString(positions.scalar_type()), fmt::join(positions.sizes(), ", "));
  }
}

void check_range(const at::Tensor& indices, std::int64_t rows) {
  if (!indices.is_cpu()) {
    const at::Tensor exist = indices.ge(0).logical_and(indices.lt(rows));
    return at::_assert_async(exist.logical_or(indices.eq(kNoRow)).all());
  }
  const at::Tensor contiguous = indices.contiguous();
  const auto* data = contiguous.data_ptr<std::int64_t>();
  const auto* bad = std::find_if(data, data + contiguous.numel(), [&](std::int64_t index) {
    return index >= rows || (index < 0 && index != kNoRow);
  });
  TORCH_CHECK_INDEX(bad == data + contiguous.numel(), "index ", *bad, " at position ", bad - data,
                    " is outside of an embedding of ", rows, " rows");
}

}  // namespace

at::Tensor embedding(const at::Tensor& weight_VC, const at::Tensor& indices,
                     const at::Tensor& positions_TC) {
  check(weight_VC, indices, positions_TC);
  if (!has_kernels(weight_VC, indices, positions_TC)) {
    const at::Tensor missing = indices.eq(kNoRow);
    const at::Tensor rows = at::embedding(weight_VC, indices.masked_fill(missing, 0))
                                .masked_fill(missing.unsqueeze(-1), 0);
    return positions_TC.defined() ? rows + positions_TC : rows;
  }
  check_range(indices, weight_VC.size(0));
  return Embedding::apply(
      weight_VC.contiguous(), indices,
      positions_TC.defined() ? c10::optional<at::Tensor>(positions_TC.contiguous()) : c10::nullopt);
}

GraphUses uses_in_graph(const at::Tensor& root, const at::Tensor& weight) {
  using torch::autograd::Node;
  GraphUses uses;
  const Node* accumulator = torch::autograd::impl::grad_accumulator(weight).get();
  std::unordered_set<Node*> seen{nullptr};
  std::vector<Node*> ahead;
  const auto visit = [&](Node* node) {
    if (seen.insert(node).second) ahead.push_back(node);
  };
  visit(root.grad_fn().get());
  while (!ahead.empty()) {
    Node* node = ahead.back();
    ahead.pop_back();
    const auto& edges = node->next_edges();
    for (std::size_t i = 0; i < edges.size(); ++i) {
      visit(edges[i].function.get());
      if (edges[i].function.get() != accumulator) continue;
      auto* lookup = dynamic_cast<torch::autograd::CppNode<Embedding>*>(node);
      if (lookup != nullptr && i == 0) {
        const at::Tensor indices = lookup->ctx_.get_saved_variables()[1];
        const at::Tensor exist = indices.ne(kNoRow);
        uses.lookups.push_back(exist.all().item<bool>() ? indices : indices.masked_select(exist));
      } else {
        ++uses.others;
      }
    }
  }
  return uses;
}

}  // namespace trireme::ops

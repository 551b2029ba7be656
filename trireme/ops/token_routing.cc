// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/token_routing.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "trireme/base/error.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/kernels/token_kernels.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor product(const MatrixView& left, const MatrixView& right, at::TensorOptions options) {
  at::Tensor out = at::empty({left.rows, right.columns}, options.requires_grad(false));
  matrix_product(out.device(), left, right,
                 {.out = out.data_ptr(), .element = element_of(out), .stride = right.columns});
  return out;
}

struct RouterLogits : torch::autograd::Function<RouterLogits> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight) {
    const TimedPart part("router forward", flops(x, weight));
    context->save_for_backward({x, weight});
    return product(view_of(x), view_of(weight).transposed(), x.options().dtype(at::kFloat));
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const TimedPart part("router backward", 2 * flops(x, weight));
    const at::Tensor y_grad = gradients[0].contiguous();
    at::Tensor x_grad;
    if (context->needs_input_grad(0)) {
      x_grad = product(view_of(y_grad), view_of(weight), x.options());
    }
    return {x_grad, detail::matrix_gradient(weight, y_grad, x)};
  }

 private:
  static double flops(const at::Tensor& x, const at::Tensor& weight) {
    return 2.0 * static_cast<double>(x.size(0)) * static_cast<double>(weight.numel());
  }
};

struct GatherTokens : torch::autograd::Function<GatherTokens> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& tokens,
                            const at::Tensor& places) {
    const TimedPart part("routing forward");
    context->save_for_backward({places});
    at::Tensor out = at::empty({tokens.size(0), x.size(1)}, x.options().requires_grad(false));
    look_up_rows(x.device(), {.element = element_of(x),
                              .table = x.data_ptr(),
                              .indices = tokens.data_ptr<std::int64_t>(),
                              .out = out.data_ptr(),
                              .rows = tokens.size(0),
                              .tokens = 1,
                              .width = x.size(1)});
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("routing backward");
    const at::Tensor places = context->get_saved_variables()[0];
    const at::Tensor gradient = gradients[0].contiguous();
    const at::Tensor x_grad = at::empty({places.size(0), gradient.size(1)}, gradient.options());
    combine_rows({.element = element_of(gradient),
                  .rows = gradient.data_ptr(),
                  .places = places.data_ptr<std::int64_t>(),
                  .out = x_grad.data_ptr(),
                  .tokens = places.size(0),
                  .choices = places.size(1),
                  .width = gradient.size(1)});
    return {x_grad, at::Tensor(), at::Tensor()};
  }
};

struct CombineTokens : torch::autograd::Function<CombineTokens> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const at::Tensor& weights, const at::Tensor& places,
                            const at::Tensor& choices) {
    const TimedPart part("routing forward");
    context->save_for_backward({rows, weights, choices});
    at::Tensor out = at::empty({places.size(0), rows.size(1)}, rows.options().requires_grad(false));
    combine_rows({.element = element_of(rows),
                  .rows = rows.data_ptr(),
                  .weights = weights.data_ptr<float>(),
                  .places = places.data_ptr<std::int64_t>(),
                  .out = out.data_ptr(),
                  .tokens = places.size(0),
                  .choices = places.size(1),
                  .width = rows.size(1)});
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("routing backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &weights = saved[1], &choices = saved[2];
    const at::Tensor gradient = gradients[0].contiguous();
    at::Tensor rows_grad = at::empty(rows.sizes(), rows.options().requires_grad(false));
    at::Tensor weights_grad = at::zeros(weights.sizes(), weights.options().requires_grad(false));
    spread_rows({.element = element_of(rows),
                 .from = gradient.data_ptr(),
                 .rows = rows.data_ptr(),
                 .weights = weights.data_ptr<float>(),
                 .choices = choices.data_ptr<std::int64_t>(),
                 .out = rows_grad.data_ptr(),
                 .dots = weights_grad.data_ptr<float>(),
                 .count = rows.size(0),
                 .choices_per_token = weights.size(1),
                 .width = rows.size(1)});
    return {rows_grad, weights_grad, at::Tensor(), at::Tensor()};
  }
};

// The k best of a row of scores, by insertion.
template <class T>
void best_of(const T* scores, std::int64_t count, std::int64_t k, std::int64_t* best) {
  const auto beats = [scores](std::int64_t a, std::int64_t b) {
    return scores[a] > scores[b] || (std::isnan(scores[b]) && !std::isnan(scores[a]));
  };
  std::int64_t found = 0;
  for (std::int64_t e = 0; e < count; ++e) {
    if (found == k && !beats(e, best[k - 1])) continue;
    std::int64_t at = found < k ? found++ : k - 1;
    for (; at > 0 && beats(e, best[at - 1]); --at) best[at] = best[at - 1];
    best[at] = e;
  }
}

template <class T>
void choose(const at::Tensor& scores, const at::Tensor& experts) {
  constexpr std::int64_t kGrain = 256;  // tokens
  const std::int64_t count = scores.size(1), k = experts.size(1);
  const T* from = scores.data_ptr<T>();
  auto* to = experts.data_ptr<std::int64_t>();
  at::parallel_for(0, scores.size(0), kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) best_of(from + n * count, count, k, to + n * k);
  });
}

void check_pair(const at::Tensor& rows, const at::Tensor& weight) {
  if (rows.dim() != 2 || weight.dim() != 2 || rows.size(1) != weight.size(1) ||
      rows.scalar_type() != weight.scalar_type()) {
    throw_error<ShapeError>("a router of {} [{}] cannot take {} [{}]",
                            c10::toString(weight.scalar_type()), fmt::join(weight.sizes(), ", "),
                            c10::toString(rows.scalar_type()), fmt::join(rows.sizes(), ", "));
  }
}

void check_rows(const at::Tensor& rows, std::int64_t count, const char* what) {
  if (rows.dim() != 2 || rows.size(0) != count) {
    throw_error<ShapeError>("{} must be [{}, C]; got [{}]", what, count,
                            fmt::join(rows.sizes(), ", "));
  }
}

bool is_ours(const at::Tensor& x) { return x.is_cpu() && has_kernels(x); }

}  // namespace

at::Tensor router_logits(const at::Tensor& x_NC, const at::Tensor& weight_EC) {
  check_pair(x_NC, weight_EC);
  if (is_ours(x_NC) && weight_EC.is_cpu() && x_NC.numel() > 0) {
    return RouterLogits::apply(x_NC.contiguous(), weight_EC.contiguous());
  }
  const auto dtype = x_NC.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::linear(x_NC.to(dtype), weight_EC.to(dtype));
}

at::Tensor choose_experts(const at::Tensor& scores_NE, std::int64_t k) {
  if (scores_NE.dim() != 2 || k < 1 || k > scores_NE.size(1)) {
    throw_error<ShapeError>("{} experts cannot be chosen by scores [{}]", k,
                            fmt::join(scores_NE.sizes(), ", "));
  }
  const bool wide = scores_NE.scalar_type() == at::kDouble;
  const at::Tensor scores =
      scores_NE.detach().to(at::kCPU, wide ? at::kDouble : at::kFloat).contiguous();
  at::Tensor experts = at::empty({scores.size(0), k}, at::kLong);
  wide ? choose<double>(scores, experts) : choose<float>(scores, experts);
  return experts.to(scores_NE.device());
}

TokenRoutes route_tokens(const at::Tensor& experts_Nk, std::int64_t num_experts,
                         std::int64_t capacity) {
  if (experts_Nk.dim() != 2 || experts_Nk.scalar_type() != at::kLong || capacity < 0) {
    throw_error<ShapeError>(
        "routes need i64 [tokens, choices] and a capacity of at least 0; got {} [{}] and {}",
        c10::toString(experts_Nk.scalar_type()), fmt::join(experts_Nk.sizes(), ", "), capacity);
  }
  const at::Tensor experts = experts_Nk.to(at::kCPU).contiguous();
  const auto* expert = experts.data_ptr<std::int64_t>();
  const std::int64_t choices = experts.numel();
  TokenRoutes routes;
  routes.chosen.assign(static_cast<std::size_t>(num_experts), 0);
  for (std::int64_t i = 0; i < choices; ++i) {
    if (expert[i] < 0 || expert[i] >= num_experts) {
      throw_error<ShapeError>("choice {} is of expert {}: there are {}", i, expert[i], num_experts);
    }
    ++routes.chosen[static_cast<std::size_t>(expert[i])];
  }
  std::vector<std::int64_t> next, end;  // rows, by expert
  std::int64_t rows = 0;
  for (const std::int64_t chosen : routes.chosen) {
    routes.rows.push_back(std::min(chosen, capacity));
    next.push_back(rows);
    end.push_back(rows += routes.rows.back());
  }
  at::Tensor of_rows = at::empty({rows}, at::kLong);
  at::Tensor places = at::full(experts.sizes(), kNoRow, at::kLong);
  auto* place = places.data_ptr<std::int64_t>();
  auto* choice = of_rows.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < choices; ++i) {
    const auto e = static_cast<std::size_t>(expert[i]);
    if (next[e] == end[e]) continue;
    choice[next[e]] = i;
    place[i] = next[e]++;
  }
  const c10::Device device = experts_Nk.device();
  routes.tokens_M = of_rows.div(std::max<std::int64_t>(1, experts.size(1)), "floor").to(device);
  routes.choices_M = of_rows.to(device);
  routes.places_Nk = places.to(device);
  return routes;
}

at::Tensor gather_tokens(const at::Tensor& x_NC, const TokenRoutes& routes) {
  check_rows(x_NC, routes.places_Nk.size(0), "tokens");
  if (!is_ours(x_NC)) {
    // By choices, each of which has one row at most: no sums in the order in which a device comes
    // to them.
    const std::int64_t N = x_NC.size(0), k = routes.places_Nk.size(1), C = x_NC.size(1);
    return x_NC.unsqueeze(1)
        .expand({N, k, C})
        .reshape({N * k, C})
        .index_select(0, routes.choices_M);
  }
  return GatherTokens::apply(x_NC.contiguous(), routes.tokens_M, routes.places_Nk);
}

at::Tensor combine_tokens(const at::Tensor& rows_MC, const at::Tensor& weights_Nk,
                          const TokenRoutes& routes) {
  check_rows(rows_MC, routes.choices_M.size(0), "rows of experts");
  const auto dtype = rows_MC.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  if (weights_Nk.sizes() != routes.places_Nk.sizes() || weights_Nk.scalar_type() != dtype) {
    throw_error<ShapeError>(
        "weights of {} rows must be {} [{}]; got {} [{}]", c10::toString(rows_MC.scalar_type()),
        c10::toString(dtype), fmt::join(routes.places_Nk.sizes(), ", "),
        c10::toString(weights_Nk.scalar_type()), fmt::join(weights_Nk.sizes(), ", "));
  }
  if (is_ours(rows_MC)) {
    return CombineTokens::apply(rows_MC.contiguous(), weights_Nk.contiguous(), routes.places_Nk,
                                routes.choices_M);
  }
  const std::int64_t none = rows_MC.size(0), C = rows_MC.size(1);
  const at::Tensor with_none = at::cat({rows_MC, at::zeros({1, C}, rows_MC.options())});
  const at::Tensor places = routes.places_Nk.masked_fill(routes.places_Nk.eq(kNoRow), none);
  const at::Tensor chosen =
      with_none.index_select(0, places.view({-1})).view({places.size(0), places.size(1), C});
  return (chosen * weights_Nk.unsqueeze(-1)).sum(1).to(rows_MC.scalar_type());
}

}  // namespace trireme::ops

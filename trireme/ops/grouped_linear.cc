// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/grouped_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trireme/base/error.h"
#include "trireme/ops/activated.h"
#include "trireme/ops/deferred_gradients.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/grouped_products.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using detail::add_grouped_product;
using detail::for_each_group;
using detail::grouped_bias_gradient;
using detail::grouped_matrix_gradient;
using detail::grouped_times;
using detail::grouped_times_transposed;
using detail::rows_like;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Kind = Epilogue::Kind;

// The gradient of the experts' second matrices. hidden: undefined where it was not kept.
at::Tensor down_gradient(const at::Tensor& down, const at::Tensor& y_grad, const at::Tensor& hidden,
                         const at::Tensor& before, const at::Tensor& factor,
                         const RowsByExpert& groups) {
  if (hidden.defined()) return grouped_matrix_gradient(down, y_grad, hidden, groups);
  return detail::now_or_later(down, {y_grad, before, factor},
                              [down, y_grad, before, factor, groups] {
                                return detail::grouped_matrix_gradient_now(
                                    down, y_grad, detail::activated(before, factor), groups);
                              });
}

double product_flops(const at::Tensor& rows, const at::Tensor& weight) {
  return 2.0 * static_cast<double>(rows.size(0)) *
         static_cast<double>(weight.size(1) * weight.size(2));
}

c10::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? c10::optional<at::Tensor>(tensor.contiguous()) : c10::nullopt;
}

// What a node keeps beside tensors.
struct KeptGroups : torch::CustomClassHolder {
  explicit KeptGroups(RowsByExpert groups_in) : groups(std::move(groups_in)) {}
  const RowsByExpert groups;
};

void keep_groups(AutogradContext* context, const RowsByExpert& groups) {
  context->saved_data["groups"] = at::IValue::make_capsule(c10::make_intrusive<KeptGroups>(groups));
}

class SavedGroups {
 public:
  explicit SavedGroups(AutogradContext* context)
      : capsule_(context->saved_data["groups"].toCapsule()) {}
  const RowsByExpert& groups() const { return static_cast<KeptGroups&>(*capsule_).groups; }

 private:
  c10::intrusive_ptr<torch::CustomClassHolder> capsule_;
};

struct GroupedLinear : torch::autograd::Function<GroupedLinear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const c10::optional<at::Tensor>& bias, const RowsByExpert& groups) {
    const TimedPart part("experts forward", product_flops(x, weight));
    context->save_for_backward({x, weight, bias.value_or(at::Tensor())});
    keep_groups(context, groups);
    return grouped_times_transposed(x, weight, groups,
                                    detail::epilogue_with_bias(bias.value_or(at::Tensor())));
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const SavedGroups kept(context);
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const at::Tensor y_grad = gradients[0].contiguous();
    const TimedPart part("experts backward", 2 * product_flops(x, weight));
    at::Tensor x_grad;
    if (context->needs_input_grad(0)) x_grad = grouped_times(y_grad, weight, kept.groups(), {});
    return {x_grad, grouped_matrix_gradient(weight, y_grad, x, kept.groups()),
            grouped_bias_gradient(bias, y_grad, kept.groups()), at::Tensor()};
  }
};

struct GroupedGeluMlp : torch::autograd::Function<GroupedGeluMlp> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& up,
                            const c10::optional<at::Tensor>& up_bias, const at::Tensor& down,
                            const c10::optional<at::Tensor>& down_bias, const RowsByExpert& groups,
                            HiddenValues keep) {
    const TimedPart part("experts forward", product_flops(x, up) + product_flops(x, down));
    const at::Tensor before = rows_like(x, up.size(1));
    Epilogue epilogue = detail::epilogue_with_bias(up_bias.value_or(at::Tensor()));
    epilogue.kind = Kind::kGelu;
    epilogue.second_out = before.data_ptr();
    const at::Tensor hidden = grouped_times_transposed(x, up, groups, epilogue);
    context->save_for_backward({x, up, up_bias.value_or(at::Tensor()), down,
                                down_bias.value_or(at::Tensor()), before,
                                keep == HiddenValues::kKept ? hidden : at::Tensor()});
    keep_groups(context, groups);
    return grouped_times_transposed(hidden, down, groups,
                                    detail::epilogue_with_bias(down_bias.value_or(at::Tensor())));
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const SavedGroups kept(context);
    const RowsByExpert& groups = kept.groups();
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &up = saved[1], &up_bias = saved[2], &down = saved[3],
                     &down_bias = saved[4], &before = saved[5], &hidden = saved[6];
    const at::Tensor y_grad = gradients[0].contiguous();
    const TimedPart part("experts backward", 2 * product_flops(x, up) + 2 * product_flops(x, down));
    // First, so that hidden values that are computed again are gone before the next tensor comes.
    const at::Tensor down_grad = down_gradient(down, y_grad, hidden, before, {}, groups);
    const at::Tensor before_grad = grouped_times(
        y_grad, down, groups, {.kind = Kind::kGeluGradient, .first_in = before.data_ptr()});
    const at::Tensor up_grad = grouped_matrix_gradient(up, before_grad, x, groups);
    at::Tensor x_grad;
    if (context->needs_input_grad(0)) x_grad = grouped_times(before_grad, up, groups, {});
    return {x_grad,
            up_grad,
            grouped_bias_gradient(up_bias, before_grad, groups),
            down_grad,
            grouped_bias_gradient(down_bias, y_grad, groups),
            at::Tensor(),
            at::Tensor()};
  }
};

struct GroupedSwigluMlp : torch::autograd::Function<GroupedSwigluMlp> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& gate_weight, const at::Tensor& up_weight,
                            const at::Tensor& down, const RowsByExpert& groups, HiddenValues keep) {
    const TimedPart part("experts forward",
                         2 * product_flops(x, up_weight) + product_flops(x, down));
    const at::Tensor gate = grouped_times_transposed(x, gate_weight, groups, {});
    const at::Tensor up = rows_like(x, up_weight.size(1));
    const at::Tensor hidden = grouped_times_transposed(
        x, up_weight, groups,
        {.kind = Kind::kSwiglu, .second_out = up.data_ptr(), .first_in = gate.data_ptr()});
    context->save_for_backward({x, gate_weight, up_weight, down, gate, up,
                                keep == HiddenValues::kKept ? hidden : at::Tensor()});
    keep_groups(context, groups);
    return grouped_times_transposed(hidden, down, groups, {});
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const SavedGroups kept(context);
    const RowsByExpert& groups = kept.groups();
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &gate_weight = saved[1], &up_weight = saved[2],
                     &down = saved[3], &gate = saved[4], &up = saved[5], &hidden = saved[6];
    const at::Tensor y_grad = gradients[0].contiguous();
    const TimedPart part("experts backward",
                         4 * product_flops(x, up_weight) + 2 * product_flops(x, down));
    const at::Tensor down_grad = down_gradient(down, y_grad, hidden, gate, up, groups);
    const at::Tensor up_grad_rows = rows_like(x, up_weight.size(1));
    const at::Tensor gate_grad_rows = grouped_times(y_grad, down, groups,
                                                    {.kind = Kind::kSwigluGradient,
                                                     .second_out = up_grad_rows.data_ptr(),
                                                     .first_in = gate.data_ptr(),
                                                     .second_in = up.data_ptr()});
    const at::Tensor gate_grad = grouped_matrix_gradient(gate_weight, gate_grad_rows, x, groups);
    const at::Tensor up_grad = grouped_matrix_gradient(up_weight, up_grad_rows, x, groups);
    at::Tensor x_grad;
    if (context->needs_input_grad(0)) {
      x_grad = grouped_times(gate_grad_rows, gate_weight, groups, {});
      add_grouped_product(up_grad_rows, up_weight, groups, x_grad);
    }
    return {x_grad, gate_grad, up_grad, down_grad, at::Tensor(), at::Tensor()};
  }
};

void check_groups(const at::Tensor& x, std::int64_t experts, const RowsByExpert& groups) {
  if (x.dim() != 2) {
    throw_error<ShapeError>("experts take rows [N, C]; got [{}]", fmt::join(x.sizes(), ", "));
  }
  std::int64_t rows = 0;
  for (const ExpertRows& group : groups) {
    if (group.expert < 0 || group.expert >= experts || group.rows < 0) {
      throw_error<ShapeError>("{} rows of expert {}: there are {} experts", group.rows,
                              group.expert, experts);
    }
    rows += group.rows;
  }
  if (rows != x.size(0)) {
    throw_error<ShapeError>("groups of {} rows in all cannot be those of [{}]", rows,
                            fmt::join(x.sizes(), ", "));
  }
}

// Matrices [E, M, K] that take rows of `columns` elements of a dtype.
void check_matrices(std::int64_t columns, at::ScalarType dtype, const at::Tensor& weight,
                    const at::Tensor& bias) {
  if (weight.dim() != 3 || columns != weight.size(2)) {
    throw_error<ShapeError>("experts of [{}] cannot take rows of {}",
                            fmt::join(weight.sizes(), ", "), columns);
  }
  if (bias.defined() && bias.sizes() != at::IntArrayRef({weight.size(0), weight.size(1)})) {
    throw_error<ShapeError>("experts of [{}] cannot add biases [{}]",
                            fmt::join(weight.sizes(), ", "), fmt::join(bias.sizes(), ", "));
  }
  for (const at::Tensor* other : {&weight, &bias}) {
    if (other->defined() && other->scalar_type() != dtype) {
      throw_error<ShapeError>("experts of {} cannot take {}", c10::toString(other->scalar_type()),
                              c10::toString(dtype));
    }
  }
}

void check_second(const at::Tensor& first, const at::Tensor& second) {
  if (first.size(0) != second.size(0)) {
    throw_error<ShapeError>("matrices [{}] and [{}] are of different numbers of experts",
                            fmt::join(first.sizes(), ", "), fmt::join(second.sizes(), ", "));
  }
}

template <class... Parameters>
bool is_ours(const at::Tensor& x, const Parameters&... parameters) {
  return x.is_cpu() && has_kernels(x, parameters...) &&
         ((!parameters.defined() || parameters.numel() > 0) && ...);
}

// f(rows of a group, expert), one after the other, one group at least, so that there is a graph
// where there are no rows.
template <class F>
at::Tensor by_group(const at::Tensor& x, const RowsByExpert& groups, const F& f) {
  std::vector<at::Tensor> results;
  for_each_group(groups, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    results.push_back(f(x.narrow(0, first, rows), expert));
  });
  if (results.empty()) results.push_back(f(x, 0));
  return at::cat(results, 0);
}

at::Tensor of_expert(const at::Tensor& stack, std::int64_t expert) {
  return stack.defined() ? stack.select(0, expert) : stack;
}

}  // namespace

at::Tensor grouped_linear(const at::Tensor& x_NK, const at::Tensor& weight_EMK,
                          const at::Tensor& bias_EM, const RowsByExpert& groups) {
  check_matrices(x_NK.size(-1), x_NK.scalar_type(), weight_EMK, bias_EM);
  check_groups(x_NK, weight_EMK.size(0), groups);
  if (!is_ours(x_NK, weight_EMK, bias_EM)) {
    return by_group(x_NK, groups, [&](const at::Tensor& x, std::int64_t expert) {
      return at::linear(x, of_expert(weight_EMK, expert), of_expert(bias_EM, expert));
    });
  }
  return GroupedLinear::apply(x_NK.contiguous(), weight_EMK.contiguous(), optional(bias_EM),
                              groups);
}

at::Tensor grouped_gelu_mlp(const at::Tensor& x_NC, const at::Tensor& up_EFC,
                            const at::Tensor& up_bias_EF, const at::Tensor& down_ECF,
                            const at::Tensor& down_bias_EC, const RowsByExpert& groups,
                            HiddenValues hidden) {
  check_matrices(x_NC.size(-1), x_NC.scalar_type(), up_EFC, up_bias_EF);
  check_matrices(up_EFC.size(1), x_NC.scalar_type(), down_ECF, down_bias_EC);
  check_second(up_EFC, down_ECF);
  check_groups(x_NC, up_EFC.size(0), groups);
  if (!is_ours(x_NC, up_EFC, up_bias_EF, down_ECF, down_bias_EC)) {
    return by_group(x_NC, groups, [&](const at::Tensor& x, std::int64_t expert) {
      const at::Tensor before =
          at::linear(x, of_expert(up_EFC, expert), of_expert(up_bias_EF, expert));
      return at::linear(at::gelu(before, "tanh"), of_expert(down_ECF, expert),
                        of_expert(down_bias_EC, expert));
    });
  }
  return GroupedGeluMlp::apply(x_NC.contiguous(), up_EFC.contiguous(), optional(up_bias_EF),
                               down_ECF.contiguous(), optional(down_bias_EC), groups, hidden);
}

at::Tensor grouped_swiglu_mlp(const at::Tensor& x_NC, const at::Tensor& gate_EFC,
                              const at::Tensor& up_EFC, const at::Tensor& down_ECF,
                              const RowsByExpert& groups, HiddenValues hidden) {
  check_matrices(x_NC.size(-1), x_NC.scalar_type(), gate_EFC, {});
  check_matrices(x_NC.size(-1), x_NC.scalar_type(), up_EFC, {});
  check_matrices(up_EFC.size(1), x_NC.scalar_type(), down_ECF, {});
  if (gate_EFC.sizes() != up_EFC.sizes()) {
    throw_error<ShapeError>("an MLP's gates [{}] must have the shape of its first matrices [{}]",
                            fmt::join(gate_EFC.sizes(), ", "), fmt::join(up_EFC.sizes(), ", "));
  }
  check_second(up_EFC, down_ECF);
  check_groups(x_NC, up_EFC.size(0), groups);
  if (!is_ours(x_NC, gate_EFC, up_EFC, down_ECF)) {
    return by_group(x_NC, groups, [&](const at::Tensor& x, std::int64_t expert) {
      return at::linear(at::silu(at::linear(x, of_expert(gate_EFC, expert))) *
                            at::linear(x, of_expert(up_EFC, expert)),
                        of_expert(down_ECF, expert));
    });
  }
  return GroupedSwigluMlp::apply(x_NC.contiguous(), gate_EFC.contiguous(), up_EFC.contiguous(),
                                 down_ECF.contiguous(), groups, hidden);
}

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/linear.h"

#include <ATen/TensorOperators.h>
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
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using detail::bias_gradient;
using detail::matrix_gradient;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Kind = Epilogue::Kind;

at::Tensor rows_like(const at::Tensor& rows, std::int64_t columns) {
  return at::empty({rows.size(0), columns}, rows.options().requires_grad(false));
}

// left weight^T, through an epilogue whose `out` this makes.
at::Tensor times_transposed(const at::Tensor& left, const at::Tensor& weight, Epilogue epilogue) {
  at::Tensor out = rows_like(left, weight.size(0));
  epilogue.out = out.data_ptr();
  epilogue.element = element_of(out);
  epilogue.stride = weight.size(0);
  matrix_product(left.device(), view_of(left), view_of(weight).transposed(), epilogue);
  return out;
}

// left weight, likewise.
at::Tensor times(const at::Tensor& left, const at::Tensor& weight, Epilogue epilogue) {
  at::Tensor out = rows_like(left, weight.size(1));
  epilogue.out = out.data_ptr();
  epilogue.element = element_of(out);
  epilogue.stride = weight.size(1);
  matrix_product(left.device(), view_of(left), view_of(weight), epilogue);
  return out;
}

Epilogue with_bias(const at::Tensor& bias) {
  return {.bias = bias.defined() ? bias.data_ptr() : nullptr};
}

// out += left weight: a second way by which the gradient of rows comes.
void add_product(const at::Tensor& left, const at::Tensor& weight, at::Tensor& out) {
  if (out.scalar_type() == at::kFloat) {
    matrix_product(left.device(), view_of(left), view_of(weight),
                   {.kind = Kind::kAdd,
                    .out = out.data_ptr(),
                    .element = Element::kF32,
                    .stride = weight.size(1)});
  } else {
    out.add_(times(left, weight, {}));
  }
}

at::Tensor shaped_like(const at::Tensor& rows, const at::Tensor& x) {
  auto shape = x.sizes().vec();
  shape.back() = rows.size(-1);
  return rows.view(shape);
}

// The gradient of an MLP's second matrix. hidden: undefined where it was not kept.
at::Tensor down_gradient(const at::Tensor& down, const at::Tensor& y_grad, const at::Tensor& hidden,
                         const at::Tensor& before, const at::Tensor& factor) {
  if (hidden.defined()) return matrix_gradient(down, y_grad, hidden);
  return detail::now_or_later(down, {y_grad, before, factor}, [down, y_grad, before, factor] {
    return detail::matrix_gradient_now(down, y_grad, detail::activated(before, factor));
  });
}

c10::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? c10::optional<at::Tensor>(tensor) : c10::nullopt;
}

double product_flops(std::int64_t rows, const at::Tensor& weight) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(weight.numel());
}

// The rows of an incoming gradient: contiguous, which sums and expanded tensors need not be.
at::Tensor gradient_rows(const variable_list& gradients) { return rows_of(gradients[0]); }

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const c10::optional<at::Tensor>& bias) {
    const at::Tensor rows = rows_of(x);
    const TimedPart part("linear forward", product_flops(rows.size(0), weight));
    context->save_for_backward({rows, weight, bias.value_or(at::Tensor())});
    const at::Tensor out = times_transposed(rows, weight, with_bias(bias.value_or(at::Tensor())));
    return shaped_like(out, x);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &weight = saved[1], &bias = saved[2];
    const at::Tensor y_grad = gradient_rows(gradients);
    const bool needs_x = context->needs_input_grad(0), needs_weight = context->needs_input_grad(1);
    const TimedPart part("linear backward",
                         (int{needs_x} + int{needs_weight}) * product_flops(rows.size(0), weight));
    at::Tensor x_grad, weight_grad, bias_grad;
    if (needs_x) x_grad = shaped_like(times(y_grad, weight, {}), gradients[0]);
    if (needs_weight) {
      weight_grad = matrix_gradient(weight, y_grad, rows);
    }
    if (bias.defined() && context->needs_input_grad(2)) bias_grad = bias_gradient(bias, y_grad);
    return {x_grad, weight_grad, bias_grad};
  }
};

struct GeluMlp : torch::autograd::Function<GeluMlp> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& up,
                            const c10::optional<at::Tensor>& up_bias, const at::Tensor& down,
                            const c10::optional<at::Tensor>& down_bias, HiddenValues keep) {
    const at::Tensor rows = rows_of(x);
    const TimedPart part("mlp forward",
                         product_flops(rows.size(0), up) + product_flops(rows.size(0), down));
    const at::Tensor before = rows_like(rows, up.size(0));
    Epilogue epilogue = with_bias(up_bias.value_or(at::Tensor()));
    epilogue.kind = Kind::kGelu;
    epilogue.second_out = before.data_ptr();
    const at::Tensor hidden = times_transposed(rows, up, epilogue);
    context->save_for_backward({rows, up, up_bias.value_or(at::Tensor()), down,
                                down_bias.value_or(at::Tensor()), before,
                                keep == HiddenValues::kKept ? hidden : at::Tensor()});
    return shaped_like(times_transposed(hidden, down, with_bias(down_bias.value_or(at::Tensor()))),
                       x);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &up = saved[1], &up_bias = saved[2], &down = saved[3],
                     &down_bias = saved[4], &before = saved[5], &hidden = saved[6];
    const at::Tensor y_grad = gradient_rows(gradients);
    const TimedPart part("mlp backward", 2 * product_flops(rows.size(0), up) +
                                             2 * product_flops(rows.size(0), down));
    // First, so that hidden values that are computed again are gone before the next tensor comes.
    const at::Tensor down_grad = down_gradient(down, y_grad, hidden, before, {});
    const at::Tensor before_grad =
        times(y_grad, down, {.kind = Kind::kGeluGradient, .first_in = before.data_ptr()});
    at::Tensor x_grad, up_bias_grad, down_bias_grad;
    const at::Tensor up_grad = matrix_gradient(up, before_grad, rows);
    if (up_bias.defined()) up_bias_grad = bias_gradient(up_bias, before_grad);
    if (down_bias.defined()) down_bias_grad = bias_gradient(down_bias, y_grad);
    if (context->needs_input_grad(0)) {
      x_grad = shaped_like(times(before_grad, up, {}), gradients[0]);
    }
    return {x_grad, up_grad, up_bias_grad, down_grad, down_bias_grad, at::Tensor()};
  }
};

struct SwigluMlp : torch::autograd::Function<SwigluMlp> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& gate_weight, const at::Tensor& up_weight,
                            const at::Tensor& down, HiddenValues keep) {
    const at::Tensor rows = rows_of(x);
    const TimedPart part("mlp forward", 2 * product_flops(rows.size(0), up_weight) +
                                            product_flops(rows.size(0), down));
    const at::Tensor gate = times_transposed(rows, gate_weight, {});
    const at::Tensor up = rows_like(rows, up_weight.size(0));
    const at::Tensor hidden = times_transposed(
        rows, up_weight,
        {.kind = Kind::kSwiglu, .second_out = up.data_ptr(), .first_in = gate.data_ptr()});
    context->save_for_backward({rows, gate_weight, up_weight, down, gate, up,
                                keep == HiddenValues::kKept ? hidden : at::Tensor()});
    return shaped_like(times_transposed(hidden, down, {}), x);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &gate_weight = saved[1], &up_weight = saved[2],
                     &down = saved[3], &gate = saved[4], &up = saved[5], &hidden = saved[6];
    const at::Tensor y_grad = gradient_rows(gradients);
    const TimedPart part("mlp backward", 4 * product_flops(rows.size(0), up_weight) +
                                             2 * product_flops(rows.size(0), down));
    const at::Tensor down_grad = down_gradient(down, y_grad, hidden, gate, up);
    const at::Tensor up_grad_rows = rows_like(rows, up_weight.size(0));
    const at::Tensor gate_grad_rows = times(y_grad, down,
                                            {.kind = Kind::kSwigluGradient,
                                             .second_out = up_grad_rows.data_ptr(),
                                             .first_in = gate.data_ptr(),
                                             .second_in = up.data_ptr()});
    at::Tensor x_grad;
    const at::Tensor gate_grad = matrix_gradient(gate_weight, gate_grad_rows, rows);
    const at::Tensor up_grad = matrix_gradient(up_weight, up_grad_rows, rows);
    if (context->needs_input_grad(0)) {
      at::Tensor sum = times(gate_grad_rows, gate_weight, {});
      add_product(up_grad_rows, up_weight, sum);
      x_grad = shaped_like(sum, gradients[0]);
    }
    return {x_grad, gate_grad, up_grad, down_grad, at::Tensor()};
  }
};

// What takes rows of `columns` elements of a dtype.
void check_layer(std::int64_t columns, at::ScalarType dtype, const at::Tensor& weight,
                 const at::Tensor& bias) {
  if (weight.dim() != 2 || columns != weight.size(1)) {
    throw_error<ShapeError>("a linear layer of [{}] cannot take rows of {}",
                            fmt::join(weight.sizes(), ", "), columns);
  }
  const bool bias_fits = !bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0) &&
                                             bias.is_contiguous());
  if (!bias_fits) {
    throw_error<ShapeError>("a linear layer of [{}] cannot add a bias [{}]",
                            fmt::join(weight.sizes(), ", "), fmt::join(bias.sizes(), ", "));
  }
  for (const at::Tensor* other : {&weight, &bias}) {
    if (other->defined() && other->scalar_type() != dtype) {
      throw_error<ShapeError>("a linear layer of {} cannot take {}",
                              c10::toString(other->scalar_type()), c10::toString(dtype));
    }
  }
}

void check_first_layer(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (x.dim() < 1) throw_error<ShapeError>("a linear layer takes rows, not a scalar");
  check_layer(x.size(-1), x.scalar_type(), weight, bias);
}

// Whether ops' own kernels run it: no dim of x or of the result is 0.
template <class... Tensors>
bool is_ours(const at::Tensor& x, const Tensors&... parameters) {
  return has_kernels(x, parameters...) && x.numel() > 0 &&
         ((!parameters.defined() || parameters.numel() > 0) && ...);
}

// The kernels read matrices whose rows are contiguous.
at::Tensor plain(const at::Tensor& weight) { return weight.contiguous(); }

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight_MK, const at::Tensor& bias_M) {
  check_first_layer(x, weight_MK, bias_M);
  if (!is_ours(x, weight_MK, bias_M)) return at::linear(x, weight_MK, bias_M);
  return Linear::apply(x, plain(weight_MK), optional(bias_M));
}

at::Tensor gelu_mlp(const at::Tensor& x, const at::Tensor& up_FC, const at::Tensor& up_bias_F,
                    const at::Tensor& down_CF, const at::Tensor& down_bias_C, HiddenValues hidden) {
  check_first_layer(x, up_FC, up_bias_F);
  check_layer(up_FC.size(0), x.scalar_type(), down_CF, down_bias_C);
  if (!is_ours(x, up_FC, up_bias_F, down_CF, down_bias_C)) {
    return at::linear(at::gelu(at::linear(x, up_FC, up_bias_F), "tanh"), down_CF, down_bias_C);
  }
  return GeluMlp::apply(x, plain(up_FC), optional(up_bias_F), plain(down_CF), optional(down_bias_C),
                        hidden);
}

at::Tensor swiglu_mlp(const at::Tensor& x, const at::Tensor& gate_FC, const at::Tensor& up_FC,
                      const at::Tensor& down_CF, HiddenValues hidden) {
  check_first_layer(x, gate_FC, {});
  check_first_layer(x, up_FC, {});
  if (gate_FC.size(0) != up_FC.size(0)) {
    throw_error<ShapeError>("an MLP's gate [{}] must have the shape of its first matrix [{}]",
                            fmt::join(gate_FC.sizes(), ", "), fmt::join(up_FC.sizes(), ", "));
  }
  check_layer(up_FC.size(0), x.scalar_type(), down_CF, {});
  if (!is_ours(x, gate_FC, up_FC, down_CF)) {
    return at::linear(at::silu(at::linear(x, gate_FC)) * at::linear(x, up_FC), down_CF);
  }
  return SwigluMlp::apply(x, plain(gate_FC), plain(up_FC), plain(down_CF), hidden);
}

}  // namespace trireme::ops

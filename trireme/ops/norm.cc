// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trireme/base/error.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor floats(std::int64_t count, const at::Tensor& beside) {
  return at::empty({count}, at::TensorOptions().dtype(at::kFloat).device(beside.device()));
}

float* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<float>() : nullptr;
}

NormShape shape_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const at::Tensor& mean, const at::Tensor& inverse) {
  return {.element = element_of(x),
          .rows = num_rows(x),
          .width = x.size(-1),
          .weight = weight.data_ptr(),
          .bias = bias.defined() ? bias.data_ptr() : nullptr,
          .mean = data_or_null(mean),
          .inverse = inverse.data_ptr<float>()};
}

// Both norms, with and without an addend. Without bias it is the RMS norm. Returns {normed} or,
// with a sum, which without addend is x, {normed, sum}.
struct Norm : torch::autograd::Function<Norm> {
  static variable_list forward(AutogradContext* context, const at::Tensor& given,
                               const c10::optional<at::Tensor>& addend, const at::Tensor& weight,
                               const c10::optional<at::Tensor>& bias, double epsilon,
                               bool with_sum) {
    const TimedPart part("norm forward");
    const at::Tensor x = given.contiguous();
    const at::Tensor normed = at::empty_like(x), inverse = floats(num_rows(x), x);
    at::Tensor sum = x, mean, other;
    if (bias) mean = floats(num_rows(x), x);
    if (addend) {
      other = addend->contiguous();
      sum = at::empty_like(x);
    }
    norm_forward(x.device(),
                 {.shape = shape_of(x, weight, bias.value_or(at::Tensor()), mean, inverse),
                  .epsilon = static_cast<float>(epsilon),
                  .x = x.data_ptr(),
                  .addend = addend ? other.data_ptr() : nullptr,
                  .sum = addend ? sum.data_ptr() : nullptr,
                  .out = normed.data_ptr()});
    context->save_for_backward({sum, weight, bias.value_or(at::Tensor()), mean, inverse});
    context->saved_data["with_sum"] = with_sum;
    context->saved_data["added"] = addend.has_value();
    return with_sum ? variable_list{normed, sum} : variable_list{normed};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("norm backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const bool added = context->saved_data["added"].toBool();
    const bool with_sum = context->saved_data["with_sum"].toBool();
    // Autograd has filled a gradient that nothing asked for with zeros.
    const at::Tensor out_grad = gradients[0].contiguous();
    const at::Tensor sum_grad = with_sum ? gradients[1].contiguous() : at::Tensor();
    const at::Tensor x_grad = at::empty_like(x);
    detail::GradientSum weight_grad(weight);
    c10::optional<detail::GradientSum> bias_grad;
    if (bias.defined()) bias_grad.emplace(bias);
    const at::Tensor partials = floats(norm_blocks(num_rows(x)) * 2 * x.size(-1), x);
    norm_backward(x.device(), {.shape = shape_of(x, weight, bias, saved[3], saved[4]),
                               .x = x.data_ptr(),
                               .out_grad = out_grad.data_ptr(),
                               .sum_grad = with_sum ? sum_grad.data_ptr() : nullptr,
                               .x_grad = x_grad.data_ptr(),
                               .weight_grad = weight_grad.data(),
                               .bias_grad = bias_grad ? bias_grad->data() : nullptr,
                               .partials = partials.data_ptr<float>()});
    return {x_grad,
            added ? x_grad : at::Tensor(),
            weight_grad.finish(),
            bias_grad ? bias_grad->finish() : at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

void check(const at::Tensor& x, const at::Tensor& addend, const at::Tensor& weight,
           const at::Tensor& bias) {
  const auto fits = [&](const at::Tensor& p) {
    return p.dim() == 1 && p.size(0) == x.size(-1) && p.scalar_type() == x.scalar_type() &&
           p.is_contiguous();
  };
  if (x.dim() < 1 || !fits(weight) || (bias.defined() && !fits(bias))) {
    throw_error<ShapeError>("a norm of {} [{}] cannot take {} [{}]",
                            c10::toString(weight.scalar_type()), fmt::join(weight.sizes(), ", "),
                            c10::toString(x.scalar_type()), fmt::join(x.sizes(), ", "));
  }
  if (addend.defined() &&
      (addend.sizes() != x.sizes() || addend.scalar_type() != x.scalar_type())) {
    throw_error<ShapeError>("cannot add {} [{}] to {} [{}]", c10::toString(addend.scalar_type()),
                            fmt::join(addend.sizes(), ", "), c10::toString(x.scalar_type()),
                            fmt::join(x.sizes(), ", "));
  }
}

template <class... Tensors>
bool is_ours(const at::Tensor& x, const Tensors&... others) {
  return has_kernels(x, others...) && x.numel() > 0;
}

c10::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? c10::optional<at::Tensor>(tensor) : c10::nullopt;
}

at::Tensor composed_rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const at::Tensor inverse = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + epsilon);
  return (wide * inverse).to(x.scalar_type()) * weight;
}

}  // namespace

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight_C, const at::Tensor& bias_C,
                      double epsilon) {
  check(x, {}, weight_C, bias_C);
  if (!is_ours(x, weight_C, bias_C))
    return at::layer_norm(x, weight_C.sizes(), weight_C, bias_C, epsilon);
  return Norm::apply(x, c10::nullopt, weight_C, c10::optional<at::Tensor>(bias_C), epsilon,
                     false)[0];
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight_C, double epsilon) {
  check(x, {}, weight_C, {});
  if (!is_ours(x, weight_C)) return composed_rms_norm(x, weight_C, epsilon);
  return Norm::apply(x, c10::nullopt, weight_C, c10::nullopt, epsilon, false)[0];
}

AddedNorm add_layer_norm(const at::Tensor& x, const at::Tensor& addend, const at::Tensor& weight_C,
                         const at::Tensor& bias_C, double epsilon) {
  check(x, addend, weight_C, bias_C);
  if (!is_ours(x, addend.defined() ? addend : x, weight_C, bias_C)) {
    const at::Tensor sum = addend.defined() ? x + addend : x;
    return {sum, layer_norm(sum, weight_C, bias_C, epsilon)};
  }
  const auto both = Norm::apply(x, if_defined(addend), weight_C, c10::optional<at::Tensor>(bias_C),
                                epsilon, true);
  return {both[1], both[0]};
}

AddedNorm add_rms_norm(const at::Tensor& x, const at::Tensor& addend, const at::Tensor& weight_C,
                       double epsilon) {
  check(x, addend, weight_C, {});
  if (!is_ours(x, addend.defined() ? addend : x, weight_C)) {
    const at::Tensor sum = addend.defined() ? x + addend : x;
    return {sum, rms_norm(sum, weight_C, epsilon)};
  }
  const auto both = Norm::apply(x, if_defined(addend), weight_C, c10::nullopt, epsilon, true);
  return {both[1], both[0]};
}

}  // namespace trireme::ops

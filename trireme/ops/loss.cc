// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_assert_async.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <c10/util/Exception.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>

#include "trireme/base/error.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Kind = Epilogue::Kind;

// What one pass over the rows makes.
struct LossPass {
  at::Tensor mean;         // f32 scalar
  at::Tensor x_grad;       // of the mean; undefined when not asked for
  at::Tensor weight_grad;  // f32
};

// One over the number of targets that count, f64, where the targets are: nothing waits for it.
at::Tensor scale_of(const at::Tensor& targets) {
  const auto wide = targets.options().dtype(at::kDouble);
  if (!targets.is_cpu()) return targets.ge(0).sum().clamp_min(1).to(at::kDouble).reciprocal();
  const auto* data = targets.data_ptr<std::int64_t>();
  const auto count = std::count_if(data, data + targets.numel(), [](auto t) { return t >= 0; });
  return at::full({}, 1.0 / static_cast<double>(std::max<std::int64_t>(1, count)), wide);
}

// losses: f64 [N]. Added in order; on a device in LibTorch's order there, which is fixed too.
at::Tensor scaled_sum(const at::Tensor& losses, const at::Tensor& scale) {
  if (!losses.is_cpu()) return (losses.sum() * scale).to(at::kFloat);
  const auto* data = losses.data_ptr<double>();
  const double sum = std::accumulate(data, data + losses.numel(), 0.0);
  return at::full({}, sum * *scale.data_ptr<double>(), losses.options().dtype(at::kFloat));
}

void store_product(const at::Tensor& out, const MatrixView& left, const MatrixView& right,
                   Kind kind) {
  matrix_product(
      out.device(), left, right,
      {.kind = kind, .out = out.data_ptr(), .element = element_of(out), .stride = right.columns});
}

// rows of one block, their logits, and the gradient of these.
class Block {
 public:
  Block(const at::Tensor& x, const at::Tensor& weight)
      : weight_(weight),
        logits_(at::empty({std::min(kLossRows, x.size(0)), weight.size(0)},
                          x.options().dtype(at::kFloat).requires_grad(false))),
        gradient_(x.scalar_type() == at::kFloat
                      ? logits_
                      : at::empty(logits_.sizes(), x.options().requires_grad(false))) {}

  // losses: one for each row. scale: f32; the gradient, times scale, is left for add_gradients().
  void run(const at::Tensor& rows, const at::Tensor& targets, const at::Tensor& losses,
           bool with_gradient, const at::Tensor& scale) {
    const at::Tensor logits = logits_.narrow(0, 0, rows.size(0));
    store_product(logits, view_of(rows), view_of(weight_).transposed(), Kind::kStore);
    cross_entropy_rows(rows.device(),
                       {.logits = logits.data_ptr<float>(),
                        .targets = targets.data_ptr<std::int64_t>(),
                        .rows = rows.size(0),
                        .columns = weight_.size(0),
                        .losses = losses.data_ptr<double>(),
                        .gradient = with_gradient ? gradient_.data_ptr() : nullptr,
                        .gradient_element = element_of(gradient_)},
                       scale.data_ptr<float>());
  }

  void add_gradients(const at::Tensor& rows, const at::Tensor& x_grad, bool first,
                     const at::Tensor& weight_grad) const {
    const MatrixView gradient = view_of(gradient_.narrow(0, 0, rows.size(0)));
    store_product(x_grad, gradient, view_of(weight_), Kind::kStore);
    store_product(weight_grad, gradient.transposed(), view_of(rows),
                  first ? Kind::kStore : Kind::kAdd);
  }

 private:
  const at::Tensor& weight_;
  at::Tensor logits_;
  at::Tensor gradient_;
};

LossPass run_pass(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                  bool with_gradient) {
  const std::int64_t N = x.size(0);
  const at::Tensor scale = scale_of(targets), rounded_scale = scale.to(at::kFloat);
  LossPass pass;
  if (with_gradient) {
    pass.x_grad = at::empty(x.sizes(), x.options().requires_grad(false));
    pass.weight_grad =
        at::empty(weight.sizes(), weight.options().dtype(at::kFloat).requires_grad(false));
  }
  const at::Tensor losses = at::empty({N}, scale.options());
  Block block(x, weight);
  for (std::int64_t begin = 0; begin < N; begin += kLossRows) {
    const std::int64_t count = std::min(kLossRows, N - begin);
    const auto part = [&](const at::Tensor& all) { return all.narrow(0, begin, count); };
    const at::Tensor rows = part(x);
    block.run(rows, part(targets), part(losses), with_gradient, rounded_scale);
    if (with_gradient) {
      block.add_gradients(rows, part(pass.x_grad), begin == 0, pass.weight_grad);
    }
  }
  pass.mean = scaled_sum(losses, scale);
  return pass;
}

// gradient x factor, where the factor comes from a loss on a device and stays there. A bf16
// gradient is multiplied in f32.
at::Tensor times_on_device(const at::Tensor& gradient, const at::Tensor& factor) {
  return (gradient.to(at::kFloat) * factor).to(gradient.scalar_type());
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& given,
                            const at::Tensor& weight, const at::Tensor& targets,
                            bool with_gradient) {
    const TimedPart part("loss", (with_gradient ? 6.0 : 2.0) * static_cast<double>(given.size(0)) *
                                     static_cast<double>(weight.numel()));
    const LossPass pass = run_pass(given.contiguous(), weight, targets.contiguous(), with_gradient);
    if (with_gradient) {
      // Saved, not held otherwise: so they are freed when their part of the backward pass is done.
      context->save_for_backward({weight, pass.x_grad, pass.weight_grad});
    }
    return pass.mean;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("loss backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &weight = saved[0], &x_grad = saved[1], &weight_grad = saved[2];
    const at::Tensor direct = detail::direct_gradient(weight);
    if (!x_grad.is_cpu()) {
      if (direct.defined()) at::Tensor(direct).addcmul_(weight_grad, gradients[0]);
      return {
          times_on_device(x_grad, gradients[0]),
          direct.defined() ? at::Tensor() : (weight_grad * gradients[0]).to(weight.scalar_type()),
          at::Tensor(), at::Tensor()};
    }
    const auto factor = gradients[0].item<float>();
    if (direct.defined()) {
      at::Tensor(direct).add_(weight_grad, factor);
    }
    return {factor == 1.0F ? x_grad : x_grad * factor,
            direct.defined() ? at::Tensor() : (weight_grad * factor).to(weight.scalar_type()),
            at::Tensor(), at::Tensor()};
  }
};

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets) {
  const bool fits = x.dim() == 2 && weight.dim() == 2 && targets.dim() == 1 &&
                    x.size(1) == weight.size(1) && x.size(0) == targets.size(0) && x.size(0) > 0 &&
                    weight.size(0) > 0 && targets.scalar_type() == at::kLong &&
                    x.scalar_type() == weight.scalar_type();
  if (!fits) {
    throw_error<ShapeError>(
        "the loss needs x [N, C], weight [V, C] of one dtype and i64 targets [N], N and V at least "
        "1; got {} [{}], {} [{}] and {} [{}]",
        c10::toString(x.scalar_type()), fmt::join(x.sizes(), ", "),
        c10::toString(weight.scalar_type()), fmt::join(weight.sizes(), ", "),
        c10::toString(targets.scalar_type()), fmt::join(targets.sizes(), ", "));
  }
}

void check_range(const at::Tensor& targets, std::int64_t rows) {
  if (!targets.is_cpu()) {
    const at::Tensor counts = targets.ge(0).logical_and(targets.lt(rows));
    return at::_assert_async(counts.logical_or(targets.eq(kIgnoredTarget)).all());
  }
  const at::Tensor contiguous = targets.contiguous();
  const auto* data = contiguous.data_ptr<std::int64_t>();
  const auto* bad = std::find_if(data, data + contiguous.numel(), [&](std::int64_t target) {
    return target >= rows || (target < 0 && target != kIgnoredTarget);
  });
  TORCH_CHECK_INDEX(bad == data + contiguous.numel(), "target ", *bad, " at row ", bad - data,
                    " is outside of a vocabulary of ", rows);
}

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& x_NC, const at::Tensor& weight_VC,
                                const at::Tensor& targets_N) {
  check(x_NC, weight_VC, targets_N);
  if (!has_kernels(x_NC, weight_VC, targets_N)) {
    const at::Tensor logits = at::linear(x_NC, weight_VC);
    const bool wide = logits.scalar_type() == at::kDouble;
    const at::Tensor sum = at::cross_entropy_loss(wide ? logits : logits.to(at::kFloat), targets_N,
                                                  {}, at::Reduction::Sum, kIgnoredTarget);
    return sum / targets_N.ge(0).sum().clamp_min(1);
  }
  check_range(targets_N, weight_VC.size(0));
  const bool with_gradient =
      at::GradMode::is_enabled() && (x_NC.requires_grad() || weight_VC.requires_grad());
  return LinearCrossEntropy::apply(x_NC, weight_VC.contiguous(), targets_N, with_gradient);
}

}  // namespace trireme::ops

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <c10/util/Exception.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/ops/kernels/matrix_product.h"
#include "trireme/ops/kernels/row_kernels.h"
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
  double mean = 0;
  at::Tensor x_grad;       // of the mean; undefined when not asked for
  at::Tensor weight_grad;  // f32
};

std::int64_t counted_targets(const at::Tensor& targets) {
  const auto* data = targets.data_ptr<std::int64_t>();
  return std::count_if(data, data + targets.numel(), [](std::int64_t t) { return t >= 0; });
}

void store_product(const MatrixView& left, const MatrixView& right, Kind kind,
                   const at::Tensor& out) {
  matrix_product(
      left, right,
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

  // losses: one for each row. Leaves the gradient, times scale, for add_gradients().
  void run(const at::Tensor& rows, const std::int64_t* targets, double* losses, bool with_gradient,
           double scale) {
    const at::Tensor logits = logits_.narrow(0, 0, rows.size(0));
    store_product(view_of(rows), view_of(weight_).transposed(), Kind::kStore, logits);
    cross_entropy_rows({.logits = logits.data_ptr<float>(),
                        .targets = targets,
                        .rows = rows.size(0),
                        .columns = weight_.size(0),
                        .losses = losses,
                        .gradient = with_gradient ? gradient_.data_ptr() : nullptr,
                        .gradient_element = element_of(gradient_),
                        .scale = static_cast<float>(scale)});
  }

  void add_gradients(const at::Tensor& rows, const at::Tensor& x_grad, bool first,
                     const at::Tensor& weight_grad) const {
    const MatrixView gradient = view_of(gradient_.narrow(0, 0, rows.size(0)));
    store_product(gradient, view_of(weight_), Kind::kStore, x_grad);
    store_product(gradient.transposed(), view_of(rows), first ? Kind::kStore : Kind::kAdd,
                  weight_grad);
  }

 private:
  const at::Tensor& weight_;
  at::Tensor logits_;
  at::Tensor gradient_;
};

LossPass run_pass(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
                  bool with_gradient) {
  const std::int64_t N = x.size(0);
  const double scale =
      1.0 / static_cast<double>(std::max<std::int64_t>(1, counted_targets(targets)));
  LossPass pass;
  if (with_gradient) {
    pass.x_grad = at::empty(x.sizes(), x.options().requires_grad(false));
    pass.weight_grad =
        at::empty(weight.sizes(), weight.options().dtype(at::kFloat).requires_grad(false));
  }
  std::vector<double> losses(static_cast<std::size_t>(N));
  Block block(x, weight);
  for (std::int64_t begin = 0; begin < N; begin += kLossRows) {
    const std::int64_t count = std::min(kLossRows, N - begin);
    const at::Tensor rows = x.narrow(0, begin, count);
    block.run(rows, targets.data_ptr<std::int64_t>() + begin, losses.data() + begin, with_gradient,
              scale);
    if (with_gradient) {
      block.add_gradients(rows, pass.x_grad.narrow(0, begin, count), begin == 0, pass.weight_grad);
    }
  }
  pass.mean = std::accumulate(losses.begin(), losses.end(), 0.0) * scale;
  return pass;
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
    return at::full({}, pass.mean, given.options().dtype(at::kFloat).requires_grad(false));
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("loss backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &weight = saved[0], &x_grad = saved[1], &weight_grad = saved[2];
    const auto factor = gradients[0].item<float>();
    const at::Tensor direct = detail::direct_gradient(weight);
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
  if (!has_kernels(x_NC)) {
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

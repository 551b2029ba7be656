// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_assert_async.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>
#include <c10/util/Exception.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "trireme/base/error.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/taken_gradients.h"
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

// What the loss, the logits and the gradient of the weight have, in a model of that dtype.
at::ScalarType wide_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

// losses: f64 [N]. Added in order; on a device in LibTorch's order there, which is fixed too.
at::Tensor scaled_sum(const at::Tensor& losses, const at::Tensor& scale, at::ScalarType dtype) {
  if (!losses.is_cpu()) return (losses.sum() * scale).to(dtype);
  const auto* data = losses.data_ptr<double>();
  const double sum = std::accumulate(data, data + losses.numel(), 0.0);
  return at::full({}, sum * *scale.data_ptr<double>(), losses.options().dtype(dtype));
}

// out = left right, or is added to it.
void store_product(const at::Tensor& out, const at::Tensor& left, const at::Tensor& right,
                   Kind kind) {
  if (has_kernels(left)) {
    return matrix_product(
        out.device(), view_of(left), view_of(right),
        {.kind = kind, .out = out.data_ptr(), .element = element_of(out), .stride = right.size(1)});
  }
  const at::Tensor product = left.matmul(right);
  kind == Kind::kAdd ? at::Tensor(out).add_(product) : at::Tensor(out).copy_(product);
}

// Rows of one block, their logits, and the gradient of these.
class Block {
 public:
  Block(const at::Tensor& x, const at::Tensor& weight)
      : weight_(weight),
        logits_(at::empty({std::min(kLossRows, x.size(0)), weight.size(0)},
                          x.options().dtype(wide_type(x.scalar_type())).requires_grad(false))),
        gradient_(x.scalar_type() == logits_.scalar_type()
                      ? logits_
                      : at::empty(logits_.sizes(), x.options().requires_grad(false))) {}
  virtual ~Block() = default;

  // losses: one for each row. scale: of logits' dtype; the gradient, times scale, is left for
  // add_gradients().
  void run(const at::Tensor& rows, const at::Tensor& targets, const at::Tensor& losses,
           bool with_gradient, const at::Tensor& scale) {
    const at::Tensor logits = logits_.narrow(0, 0, rows.size(0));
    store_product(logits, rows, weight_.t(), Kind::kStore);
    finish(logits, targets, losses,
           with_gradient ? gradient_.narrow(0, 0, rows.size(0)) : at::Tensor(), scale);
  }

  void add_gradients(const at::Tensor& rows, const at::Tensor& x_grad, bool first,
                     const at::Tensor& weight_grad) const {
    const at::Tensor gradient = gradient_.narrow(0, 0, rows.size(0));
    store_product(x_grad, gradient, weight_, Kind::kStore);
    store_product(weight_grad, gradient.t(), rows, first ? Kind::kStore : Kind::kAdd);
  }

 private:
  // From logits to losses, and to the gradient where it is defined; it may be the logits.
  virtual void finish(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& losses,
                      const at::Tensor& gradient, const at::Tensor& scale) = 0;

  const at::Tensor& weight_;
  at::Tensor logits_;
  at::Tensor gradient_;
};

// Of the whole vocabulary, where there are kernels.
class WholeBlock final : public Block {
 public:
  using Block::Block;

 private:
  void finish(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& losses,
              const at::Tensor& gradient, const at::Tensor& scale) override {
    cross_entropy_rows(logits.device(),
                       {.logits = logits.data_ptr<float>(),
                        .targets = targets.data_ptr<std::int64_t>(),
                        .rows = logits.size(0),
                        .columns = logits.size(1),
                        .losses = losses.data_ptr<double>(),
                        .gradient = gradient.defined() ? gradient.data_ptr() : nullptr,
                        .gradient_element = gradient.defined() ? element_of(gradient) : Element{}},
                       scale.data_ptr<float>());
  }
};

// Of a part of the vocabulary. What the parts tell one another of a row are the logarithm of its
// sum of exponentials and its target's logit, 0 where that is elsewhere.
class PartBlock final : public Block {
 public:
  PartBlock(const at::Tensor& x, const at::Tensor& weight, const VocabularyPart& part)
      : Block(x, weight), part_(part) {}

 private:
  void finish(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& losses,
              const at::Tensor& gradient, const at::Tensor& scale) override {
    const bool kernels = logits.is_cpu() && has_kernels(logits);
    const at::Tensor own = at::empty({2, logits.size(0)}, losses.options());
    const at::Tensor most = at::empty({logits.size(0)}, logits.options());
    VocabularyRows rows;
    if (kernels) {
      rows = {.logits = logits.data_ptr<float>(),
              .targets = targets.data_ptr<std::int64_t>(),
              .rows = logits.size(0),
              .columns = logits.size(1),
              .first = part_.first,
              .most = most.data_ptr<float>(),
              .log_sums = own[0].data_ptr<double>(),
              .target_logits = own[1].data_ptr<double>()};
      sum_exponentials(rows);
    } else {
      measure(logits, targets, own);
    }
    const at::Tensor all = part_.gather(own);
    const at::Tensor log_sums = at::logsumexp(all.select(1, 0), 0).contiguous();
    const at::Tensor counts = targets.ge(0);
    at::Tensor(losses).copy_((log_sums - all.select(1, 1).sum(0)).masked_fill(~counts, 0));
    if (!gradient.defined()) return;
    if (kernels) {
      rows.log_sums = log_sums.data_ptr<double>();
      return softmax_gradient(rows, gradient.data_ptr(), element_of(gradient),
                              *scale.data_ptr<float>());
    }
    const at::Tensor softmax = logits.sub(log_sums.to(logits.scalar_type()).unsqueeze(1)).exp_();
    softmax.sub_(ones_at(targets, logits));
    at::Tensor(gradient).copy_(softmax.mul_(scale).masked_fill_(~counts.unsqueeze(1), 0));
  }

  // As sum_exponentials(), by LibTorch's operations.
  void measure(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& own) const {
    own[0].copy_(at::logsumexp(logits, 1));
    own[1].copy_((logits * ones_at(targets, logits)).sum(1));
  }

  // [R, V'] of the logits' dtype: 1 at the target where it is here.
  at::Tensor ones_at(const at::Tensor& targets, const at::Tensor& logits) const {
    const at::Tensor columns =
        at::arange(part_.first, part_.first + logits.size(1), targets.options());
    return targets.unsqueeze(1).eq(columns).to(logits.scalar_type());
  }

  const VocabularyPart& part_;
};

LossPass run_pass(Block& block, const at::Tensor& x, const at::Tensor& weight,
                  const at::Tensor& targets, bool with_gradient) {
  const std::int64_t N = x.size(0);
  const at::ScalarType wide = wide_type(x.scalar_type());
  const at::Tensor scale = scale_of(targets), rounded_scale = scale.to(wide);
  LossPass pass;
  if (with_gradient) {
    pass.x_grad = at::empty(x.sizes(), x.options().requires_grad(false));
    pass.weight_grad = at::empty(weight.sizes(), weight.options().dtype(wide).requires_grad(false));
  }
  const at::Tensor losses = at::empty({N}, scale.options());
  for (std::int64_t begin = 0; begin < N; begin += kLossRows) {
    const std::int64_t count = std::min(kLossRows, N - begin);
    const auto part = [&](const at::Tensor& all) { return all.narrow(0, begin, count); };
    const at::Tensor rows = part(x);
    block.run(rows, part(targets), part(losses), with_gradient, rounded_scale);
    if (with_gradient) {
      block.add_gradients(rows, part(pass.x_grad), begin == 0, pass.weight_grad);
    }
  }
  pass.mean = scaled_sum(losses, scale, wide);
  return pass;
}

// gradient x factor, where the factor comes from a loss on a device and stays there. A bf16
// gradient is multiplied in f32.
at::Tensor times_on_device(const at::Tensor& gradient, const at::Tensor& factor) {
  return (gradient.to(at::kFloat) * factor).to(gradient.scalar_type());
}

at::Tensor scaled(const at::Tensor& gradient, double factor) {
  return factor == 1.0 ? gradient : gradient * factor;
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& given,
                            const at::Tensor& weight, const at::Tensor& targets, bool with_gradient,
                            const VocabularyPart& vocabulary) {
    const TimedPart part("loss", (with_gradient ? 6.0 : 2.0) * static_cast<double>(given.size(0)) *
                                     static_cast<double>(weight.numel()));
    const at::Tensor x = given.contiguous();
    const std::unique_ptr<Block> block =
        vocabulary.gather ? std::unique_ptr<Block>(new PartBlock(x, weight, vocabulary))
                          : std::make_unique<WholeBlock>(x, weight);
    const LossPass pass = run_pass(*block, x, weight, targets.contiguous(), with_gradient);
    if (with_gradient) {
      // Saved, not held otherwise: so they are freed when their part of the backward pass is done.
      const bool taken = detail::takes_loss_matrix();
      if (taken) detail::take_loss_matrix(pass.weight_grad);
      context->save_for_backward({weight, pass.x_grad, taken ? at::Tensor() : pass.weight_grad});
    }
    return pass.mean;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    detail::check_first_derivative();
    const TimedPart part("loss backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &weight = saved[0], &x_grad = saved[1], &weight_grad = saved[2];
    if (!weight_grad.defined()) {  // it was taken
      const at::Tensor gradient = x_grad.is_cpu() ? scaled(x_grad, gradients[0].item<double>())
                                                  : times_on_device(x_grad, gradients[0]);
      return {gradient, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const at::Tensor direct = detail::direct_gradient(weight);
    if (!x_grad.is_cpu()) {
      if (direct.defined()) at::Tensor(direct).addcmul_(weight_grad, gradients[0]);
      return {
          times_on_device(x_grad, gradients[0]),
          direct.defined() ? at::Tensor() : (weight_grad * gradients[0]).to(weight.scalar_type()),
          at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const auto factor = gradients[0].item<double>();
    if (direct.defined()) {
      at::Tensor(direct).add_(weight_grad, factor);
    }
    return {scaled(x_grad, factor),
            direct.defined() ? at::Tensor() : (weight_grad * factor).to(weight.scalar_type()),
            at::Tensor(), at::Tensor(), at::Tensor()};
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

bool needs_gradient(const at::Tensor& x, const at::Tensor& weight) {
  return at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
}

// What the graph knows of the matrix: a constant where its gradient is taken.
at::Tensor in_graph(const at::Tensor& weight) {
  return (detail::takes_loss_matrix() ? weight.detach() : weight).contiguous();
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
  return LinearCrossEntropy::apply(x_NC, in_graph(weight_VC), targets_N,
                                   needs_gradient(x_NC, weight_VC), VocabularyPart());
}

at::Tensor linear_cross_entropy(const at::Tensor& x_NC, const at::Tensor& weight_VC,
                                const at::Tensor& targets_N, const VocabularyPart& part) {
  check(x_NC, weight_VC, targets_N);
  const std::int64_t end = part.first + weight_VC.size(0);
  if (part.first < 0 || end > part.size) {
    throw_error<ShapeError>("rows [{}, {}) are no part of a vocabulary of {}", part.first, end,
                            part.size);
  }
  check_range(targets_N, part.size);
  return LinearCrossEntropy::apply(x_NC, in_graph(weight_VC), targets_N,
                                   needs_gradient(x_NC, weight_VC), part);
}

}  // namespace trireme::ops

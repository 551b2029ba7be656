// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/layer_times.h"

#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <span>

#include "trireme/comm/group.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/split_backward.h"
#include "trireme/train/parallel_groups.h"

namespace trireme {
namespace {

constexpr int kPasses = 3;

double us_of(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

// A part of the model, alone.
class MeasuredPart {
 public:
  MeasuredPart(const TrainConfig& config, const nn::TransformerPart& part)
      : model_(config.model, part), tokens_(micro_batch(config)), targets_(micro_batch(config)) {
    nn::initialize(*model_, 1);
    model_->set_recompute(config.compute.recompute_mode());
    const at::ScalarType dtype = config.train.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
    model_->to(dtype);
    for (at::Tensor& parameter : model_->parameters()) {
      parameter.mutable_grad() = at::zeros(parameter.sizes(), at::TensorOptions(at::kFloat));
    }
    if (!part.embedding) {
      hidden_ = at::randn({tokens_.size(0), tokens_.size(1), config.model.width},
                          at::TensorOptions(dtype))
                    .requires_grad_();
    }
  }

  plan::StageTimes best() {
    constexpr double kMost = std::numeric_limits<double>::max();
    plan::StageTimes best{kMost, kMost, kMost};
    for (int pass = 0; pass < kPasses; ++pass) {
      const plan::StageTimes times = run();
      best.forward = std::min(best.forward, times.forward);
      best.backward_input = std::min(best.backward_input, times.backward_input);
      best.backward_weight = std::min(best.backward_weight, times.backward_weight);
    }
    return best;
  }

 private:
  static at::Tensor micro_batch(const TrainConfig& config) {
    return at::randint(config.model.vocab_size,
                       {config.batch.micro_batch_size, config.model.context / config.parallel.cp},
                       at::TensorOptions(at::kLong));
  }

  plan::StageTimes run() {
    plan::StageTimes times;
    at::Tensor root;
    const at::Tensor& input = hidden_.defined() ? hidden_ : tokens_;
    times.forward = us_of([&] {
      root = model_->part().head ? model_->loss(input, targets_) : model_->hidden(input).hidden;
    });
    ops::SplitBackward split;
    const at::Tensor seed = at::ones_like(root);
    const ops::DirectGradients direct;
    times.backward_input = us_of([&] {
      split.backward_inputs(
          {torch::autograd::impl::gradient_edge(root)}, {seed},
          hidden_.defined() ? std::vector<at::Tensor>{hidden_} : std::vector<at::Tensor>{});
    });
    times.backward_weight = us_of([&] { split.backward_weights(); });
    return times;
  }

  nn::Transformer model_;
  at::Tensor tokens_, targets_, hidden_;
};

}  // namespace

LayerTimes measure_layer_times(const TrainConfig& config) {
  const auto measure = [&](const nn::TransformerPart& part) {
    return MeasuredPart(config, part).best();
  };
  const std::int64_t layers = config.model.layers;
  return {.embedding = measure({.begin = 0, .end = 0, .head = false}),
          .block = measure({.begin = layers - 1, .end = layers, .embedding = false, .head = false}),
          .head = measure({.begin = layers, .end = layers, .embedding = false})};
}

LayerTimes layer_times_of_run(const TrainConfig& config, const ParallelGroups& groups) {
  if (config.parallel.pipeline.balance != "measure") return estimate_layer_times(config);
  std::array<plan::StageTimes, 3> times;
  if (groups.world().rank() == 0) {
    const LayerTimes measured = measure_layer_times(config);
    times = {measured.embedding, measured.block, measured.head};
  }
  std::vector<double> numbers;
  for (const plan::StageTimes& one : times) {
    numbers.insert(numbers.end(), {one.forward, one.backward_input, one.backward_weight});
  }
  groups.world().broadcast(buffer_of(std::span(numbers)), 0);
  const auto at = [&](std::size_t i) {
    return plan::StageTimes{numbers[3 * i], numbers[3 * i + 1], numbers[3 * i + 2]};
  };
  return {.embedding = at(0), .block = at(1), .head = at(2)};
}

}  // namespace trireme

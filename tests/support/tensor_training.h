// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Some steps of a small transformer whose matrices are cut across ranks, beside data parallelism,
// and of the same model on one rank.
#pragma once

#include <ATen/ops/stack.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "trireme/comm/group.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/parallel/data/replica.h"
#include "trireme/parallel/tensor/parallelize.h"
#include "trireme/topology/mesh.h"

namespace trireme::testing {

struct TensorRun {
  std::string family = "gpt2";
  int dp = 1;
  int tp = 1;
  bool sequence = false;
  int chunks = 1;
  nn::Recompute recompute = nn::Recompute::kNone;
  std::int64_t steps = 20;
  // Changes what the ranks know of their parts: for mistakes.
  std::function<void(ModelParts&)> spoil = {};

  std::string text() const {
    return fmt::format("{} dp {} tp {}{} chunks {}{}", family, dp, tp, sequence ? " sequence" : "",
                       chunks, recompute == nn::Recompute::kNone ? "" : " recomputed");
  }
};

inline constexpr std::int64_t kTensorMicroBatches = 4;

// "gpt2", "dropout" (the same with a fifth dropped), "llama" (2 of 4 heads for keys), "uneven":
// llama with 3 of 6 heads for keys and a tied head, all sizes odd ones, documents apart.
inline nn::ModelConfig tensor_config(const std::string& family) {
  if (family != "uneven") return small_model_config(family == "dropout" ? "gpt2" : family);
  nn::ModelConfig config;
  config.family = "llama";
  config.layers = 2;
  config.heads = 6;
  config.kv_heads = 3;
  config.width = 60;
  config.mlp_width = 41;
  config.context = 11;
  config.vocab_size = 37;
  config.tie_head = "yes";
  config.attention_window = 5;
  config.resolve(0);
  return config;
}

inline at::Tensor loss_of_micro_batch(nn::Transformer& model, const std::string& family,
                                      std::int64_t micro_batch) {
  const at::Tensor tokens = formula_tokens(3, 11, 37, micro_batch);
  at::Tensor targets = formula_tokens(3, 11, 37, micro_batch + 1);
  at::Tensor starts;
  if (family == "uneven") {
    targets[1][4] = ops::kIgnoredTarget;
    starts = torch::zeros({3, 11}, at::kLong);
    starts.narrow(1, 6, 5).fill_(6);
  }
  if (family == "dropout") model->set_dropout({.share = 0.2, .seed = 5});
  model->set_first_sample(3 * micro_batch);
  return model->loss(tokens, targets, starts);
}

// Of each step: the loss, the norm, and every parameter's gradient; at the end the weights.
struct TrainedSteps {
  std::vector<double> losses, norms;
  std::vector<std::map<std::string, at::Tensor>> gradients;
  std::map<std::string, at::Tensor> weights;
};

inline void descend(torch::nn::Module& model, double learning_rate) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : model.parameters()) {
    parameter.sub_(parameter.grad(), learning_rate);
  }
}

inline std::map<std::string, at::Tensor> named_values(const torch::nn::Module& model,
                                                      bool gradients) {
  std::map<std::string, at::Tensor> values;
  for (const auto& item : model.named_parameters()) {
    const at::Tensor value = gradients ? item.value().grad() : item.value().detach();
    values[item.key()] = value.defined() ? value.clone() : torch::zeros_like(item.value());
  }
  return values;
}

inline constexpr double kTensorLearningRate = 0.02;

// In f64, by plain gradient descent.
inline TrainedSteps train_whole(const std::string& family, std::int64_t steps) {
  nn::Transformer model(tensor_config(family));
  nn::initialize(*model, 11);
  model->to(at::kDouble);
  TrainedSteps result;
  for (std::int64_t step = 0; step < steps; ++step) {
    model->zero_grad();
    double loss = 0;
    for (std::int64_t m = 0; m < kTensorMicroBatches; ++m) {
      const at::Tensor one =
          loss_of_micro_batch(model, family, step * kTensorMicroBatches + m) / kTensorMicroBatches;
      one.backward();
      loss += one.item<double>();
    }
    result.losses.push_back(loss);
    result.gradients.push_back(named_values(*model, true));
    double squares = 0;
    for (const auto& [name, gradient] : result.gradients.back()) {
      squares += gradient.square().sum().item<double>();
    }
    result.norms.push_back(std::sqrt(squares));
    descend(*model, kTensorLearningRate);
  }
  result.weights = named_values(*model, false);
  return result;
}

// One for each family and number of steps.
inline const TrainedSteps& trained_whole(const std::string& family, std::int64_t steps) {
  static std::map<std::pair<std::string, std::int64_t>, TrainedSteps> known;
  const auto [found, is_new] = known.try_emplace({family, steps});
  if (is_new) found->second = train_whole(family, steps);
  return found->second;
}

inline nn::Transformer transformer_without_memory(const nn::ModelConfig& config) {
  const nn::ParametersWithoutMemory later;
  return nn::Transformer(config);
}

// The largest difference between this rank's parts of tensors and those parts of the whole ones,
// each relative to the whole one's largest element. NaN where there is one.
inline double parts_difference(const torch::nn::Module& model,
                               const std::map<std::string, at::Tensor>& parts,
                               const std::map<std::string, at::Tensor>& whole) {
  // Gradients of biases of keys are zero but for rounding, since a softmax does not see them.
  double least = 0;
  for (const auto& [name, tensor] : whole) {
    least = std::max(least, 1e-4 * tensor.abs().max().item<double>());
  }
  double difference = 0;
  for (const nn::RoledParameter& parameter : nn::parameters_with_roles(model)) {
    const at::Tensor& tensor = whole.at(parameter.name);
    const nn::ParameterPart& part = parameter.part;
    const at::Tensor expected =
        part.dim < 0 ? tensor : tensor.narrow(part.dim, part.begin, part.size);
    const at::Tensor& own = parts.at(parameter.name);
    if (own.sizes() != expected.sizes()) return 1;
    const double here = (own.to(at::kDouble) - expected).abs().max().item<double>() /
                        std::max(least, tensor.abs().max().item<double>());
    if (!(here <= difference)) difference = here;
  }
  return difference;
}

// The same on the ranks of a group: the largest difference from the whole run, of losses, norms,
// gradients and weights.
inline double train_parts(Group& world, const TensorRun& run, const TrainedSteps& expected) {
  const Mesh mesh({{"dp", run.dp}, {"tp", run.tp}});
  const auto dp = world.split(mesh, "dp"), tp = world.split(mesh, "tp");
  nn::Transformer model = transformer_without_memory(tensor_config(run.family));
  const TensorParallel cut =
      parallelize(*model, *tp, {.sequence = run.sequence, .chunks = run.chunks});
  nn::initialize(*model, 11);
  model->to(at::kDouble);
  model->set_recompute(run.recompute);
  ModelParts parts = cut.parts();
  if (run.spoil) run.spoil(parts);
  Replica replica(*model, *dp, {.micro_batches = kTensorMicroBatches});
  double difference = 0;
  const auto differ = [&](double value, double other) {
    const double here = std::abs(value - other) / std::abs(other);
    if (!(here <= difference)) difference = here;
  };
  for (std::int64_t step = 0; step < run.steps; ++step) {
    model->zero_grad();
    double loss = 0;
    for (const std::int64_t m : replica.micro_batches()) {
      const at::Tensor one = loss_of_micro_batch(model, run.family, step * kTensorMicroBatches + m);
      replica.backward(one);
      loss += one.item<double>();
    }
    replica.finish_gradients();
    sum_partial_gradients(*model, parts);
    dp->all_reduce(buffer_of(std::span(&loss, 1)));
    const auto index = static_cast<std::size_t>(step);
    differ(loss / kTensorMicroBatches, expected.losses[index]);
    differ(whole_gradient_norm(*model, parts), expected.norms[index]);
    const double here =
        parts_difference(*model, named_values(*model, true), expected.gradients[index]);
    if (!(here <= difference)) difference = here;
    descend(*model, kTensorLearningRate);
  }
  const double end = parts_difference(*model, named_values(*model, false), expected.weights);
  return end <= difference ? difference : end;
}

}  // namespace trireme::testing

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
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/support/model_fixtures.h"
#include "tests/support/ranks.h"
#include "trireme/comm/group.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/parallel/context/context_parallel.h"
#include "trireme/parallel/data/replica.h"
#include "trireme/parallel/expert/expert_parallel.h"
#include "trireme/parallel/tensor/parallelize.h"
#include "trireme/topology/mesh.h"

namespace trireme::testing {

struct MeshRun {
  std::string family = "gpt2";
  int dp = 1;
  int ep = 1;
  int cp = 1;
  int tp = 1;
  std::string cp_method = "ring";
  bool sequence = false;
  int chunks = 1;
  nn::Recompute recompute = nn::Recompute::kNone;
  std::int64_t steps = 20;
  // Changes what the ranks know of their parts: for mistakes.
  std::function<void(ModelParts&)> spoil = {};

  std::string text() const {
    return fmt::format("{} dp {} ep {} cp {} {} tp {}{} chunks {}{}", family, dp, ep, cp, cp_method,
                       tp, sequence ? " sequence" : "", chunks,
                       recompute == nn::Recompute::kNone ? "" : " recomputed");
  }
};

inline constexpr std::int64_t kMeshMicroBatches = 8;

// "gpt2", "dropout" (the same with a fifth dropped), "llama" (2 of 4 heads for keys), "uneven":
// llama with 3 of 6 heads for keys and a tied head, all sizes odd ones, documents apart.
inline nn::ModelConfig mesh_config(const std::string& family) {
  if (family == "experts") {
    nn::ModelConfig config = small_model_config("llama");
    config.kv_heads = 4;
    config.experts = {.count = 5, .top_k = 2, .width = 20, .shared = 1, .first_dense = 1};
    config.experts.balance = "none";
    config.experts.z_coefficient = 0.003;
    config.resolve(0);
    return config;
  }
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

// All of a micro-batch, or with context this rank's share of its loss.
inline at::Tensor loss_of_micro_batch(nn::Transformer& model, const std::string& family,
                                      std::int64_t micro_batch,
                                      ContextParallel* context = nullptr) {
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
  if (context == nullptr) return model->loss(tokens, targets, starts);
  const ContextBatch own = context->cut(tokens, targets, starts);
  return model->loss(own.tokens_BT, own.targets_BT, own.document_starts_BT) * own.weight;
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

inline constexpr double kMeshLearningRate = 0.02;

// In f64, by plain gradient descent.
inline TrainedSteps train_whole(const std::string& family, std::int64_t steps) {
  nn::Transformer model(mesh_config(family));
  nn::initialize(*model, 11);
  model->to(at::kDouble);
  TrainedSteps result;
  for (std::int64_t step = 0; step < steps; ++step) {
    model->zero_grad();
    double loss = 0;
    for (std::int64_t m = 0; m < kMeshMicroBatches; ++m) {
      const at::Tensor one =
          loss_of_micro_batch(model, family, step * kMeshMicroBatches + m) / kMeshMicroBatches;
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
    descend(*model, kMeshLearningRate);
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

// This rank's part of a model of f32, its groups, and its micro-batches of a step.
struct CutModel {
  CutModel(Group& world, const MeshRun& run)
      : mesh({{"dp", run.dp}, {"ep", run.ep}, {"cp", run.cp}, {"tp", run.tp}}),
        replicas(world.split(mesh, Axes{"dp", "cp"})),
        losses(world.split(mesh, Axes{"dp", "ep", "cp"})),
        parts_group(world.split(mesh, Axes{"ep", "tp"})),
        ep(world.split(mesh, "ep")),
        cp(world.split(mesh, "cp")),
        tp(world.split(mesh, "tp")),
        model(transformer_without_memory(mesh_config(run.family))),
        passes(kMeshMicroBatches / (run.dp * run.ep)),
        first((mesh.coordinate(world.rank(), "dp") * run.ep + mesh.coordinate(world.rank(), "ep")) *
              passes) {
    if (run.family == "experts") spread.emplace(expert_parallel(*model, *ep));
    cut.emplace(parallelize(*model, *tp, {.sequence = run.sequence, .chunks = run.chunks}));
    if (run.cp > 1) context.emplace(context_parallel(*model, *cp, {.method = run.cp_method}));
    nn::initialize(*model, 11);
    model->set_recompute(run.recompute);
    parts = joined(cut->parts(), spread ? spread->parts() : ModelParts(), parts_group.get());
  }

  // This rank's share of the loss of a pass of a step.
  at::Tensor loss(const MeshRun& run, std::int64_t step, std::int64_t pass) {
    return loss_of_micro_batch(model, run.family, step * kMeshMicroBatches + first + pass,
                               context ? &*context : nullptr);
  }

  using Axes = std::vector<std::string>;
  const Mesh mesh;
  const std::unique_ptr<Group> replicas, losses, parts_group, ep, cp, tp;
  nn::Transformer model;
  const std::int64_t passes, first;
  std::optional<ExpertParallel> spread;
  std::optional<TensorParallel> cut;
  std::optional<ContextParallel> context;
  ModelParts parts;
};

// The same on the ranks of a group: the largest difference from the whole run, of losses, norms,
// gradients and weights.
inline double train_parts(Group& world, const MeshRun& run, const TrainedSteps& expected) {
  CutModel own(world, run);
  nn::Transformer& model = own.model;
  model->to(at::kDouble);
  ModelParts& parts = own.parts;
  if (run.spoil) run.spoil(parts);
  // Replica's mean is over the passes of all ranks.
  Replica replica(*model, *own.replicas, {.micro_batches = own.passes * run.dp * run.cp});
  double difference = 0;
  const auto differ = [&](double value, double other) {
    const double here = std::abs(value - other) / std::abs(other);
    if (!(here <= difference)) difference = here;
  };
  for (std::int64_t step = 0; step < run.steps; ++step) {
    model->zero_grad();
    double loss = 0;
    for (std::int64_t pass = 0; pass < own.passes; ++pass) {
      const at::Tensor share = own.loss(run, step, pass);
      replica.backward(share * (static_cast<double>(run.cp) / run.ep));
      loss += share.item<double>();
    }
    replica.finish_gradients();
    sum_partial_gradients(*model, parts);
    own.losses->all_reduce(buffer_of(std::span(&loss, 1)));
    const auto index = static_cast<std::size_t>(step);
    differ(loss / kMeshMicroBatches, expected.losses[index]);
    differ(whole_gradient_norm(*model, parts), expected.norms[index]);
    const double here =
        parts_difference(*model, named_values(*model, true), expected.gradients[index]);
    if (!(here <= difference)) difference = here;
    descend(*model, kMeshLearningRate);
  }
  const double end = parts_difference(*model, named_values(*model, false), expected.weights);
  return end <= difference ? difference : end;
}

// f64 sums of at most 60 x 41 terms in another order, over the steps of a run.
inline constexpr double kMeshBound = 1e-10;

inline void expect_trains_as_one_rank(const MeshRun& run) {
  const TrainedSteps& expected = trained_whole(run.family, run.steps);
  run_threads(run.dp * run.ep * run.cp * run.tp, [&](Group& world) {
    EXPECT_LT(train_parts(world, run, expected), kMeshBound)
        << run.text() << ", rank " << world.rank();
  });
}

// Each of 1, 2 and 4, in all ways that make `ranks` of them; every other one by ulysses, with
// sequence parallelism, or recomputed.
inline std::vector<MeshRun> meshes_of(int ranks) {
  std::vector<MeshRun> runs;
  for (const int dp : {1, 2, 4}) {
    for (const int ep : {1, 2, 4}) {
      for (const int cp : {1, 2, 4}) {
        for (const int tp : {1, 2, 4}) {
          if (dp * ep * cp * tp != ranks) continue;
          MeshRun run{.family = "experts", .dp = dp, .ep = ep, .cp = cp, .tp = tp};
          const auto number = runs.size();
          // A rank of tp has heads to share with those of cp.
          if (number % 2 == 1 && cp * tp <= 4) run.cp_method = "ulysses";
          if (number % 3 == 1) run.recompute = nn::Recompute::kBlocks;
          runs.push_back(run);
          if (ep > 1) continue;
          run.family = number % 2 == 0 ? "dropout" : "llama";
          run.sequence = number % 2 == 0;
          runs.push_back(run);
        }
      }
    }
  }
  return runs;
}

}  // namespace trireme::testing

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Model parallelism inside of copies of a model whose state is sharded (ZeRO) between them.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/mesh_training.h"
#include "tests/support/ranks.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/shard/sharded_model.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

using testing::run_threads;
using testing::trained_whole;

struct Layout {
  int dp, tp, stage;
  bool sequence;
  at::ScalarType dtype = at::kFloat;
  nn::Recompute recompute = nn::Recompute::kNone;
  int ep = 1, cp = 1;
  std::string cp_method = "ring";

  testing::MeshRun run(const std::string& family) const {
    return {.family = family,
            .dp = dp,
            .ep = ep,
            .cp = cp,
            .tp = tp,
            .cp_method = cp_method,
            .sequence = sequence,
            .recompute = recompute};
  }

  std::string text() const {
    return fmt::format("dp {} ep {} cp {} {} tp {} stage {}{} {}{}", dp, ep, cp, cp_method, tp,
                       stage, sequence ? " sequence" : "", c10::toString(dtype),
                       recompute == nn::Recompute::kNone ? "" : " recomputed");
  }
};

constexpr std::int64_t kSteps = 20;

struct Difference {
  double losses = 0, norms = 0, weights = 0;
};

void widen(double& most, double value, double expected) {
  const double here = std::abs(value - expected) / std::abs(expected);
  if (!(here <= most)) most = here;
}

// The largest differences from the model of one rank in f64; of weights on ranks with dp 0.
Difference train_sharded(Group& world, const std::string& family, const Layout& layout,
                         const testing::TrainedSteps& expected) {
  const testing::MeshRun run = layout.run(family);
  testing::CutModel own(world, run);
  nn::Transformer& model = own.model;
  const auto roled = nn::parameters_with_roles(*model);
  ShardedModel sharded(*model, *own.replicas,
                       {.stage = layout.stage,
                        .dtype = layout.dtype,
                        .micro_batches = own.passes * layout.dp * layout.cp,
                        .bucket_bytes = std::int64_t{16} << 10,
                        .units = model->blocks(),
                        .parts = own.parts});
  model->set_block_runner([&](const auto& block, const auto& inputs, const auto& f) {
    return sharded.run(block, inputs, f);
  });
  const auto optimizer = optim::make_optimizer(
      {.name = "sgd", .momentum = 0.0, .stochastic_rounding = false}, sharded.space());
  Difference difference;
  for (std::int64_t step = 0; step < kSteps; ++step) {
    double loss = 0;
    for (std::int64_t pass = 0; pass < own.passes; ++pass) {
      const at::Tensor one = sharded.forward([&] { return own.loss(run, step, pass); });
      sharded.backward(one);
      loss += one.item<double>();
    }
    sharded.finish_gradients();
    own.losses->all_reduce(buffer_of(std::span(&loss, 1)));
    const auto index = static_cast<std::size_t>(step);
    constexpr auto kCount = static_cast<double>(testing::kMeshMicroBatches);
    widen(difference.losses, loss / kCount, expected.losses[index]);
    widen(difference.norms, sharded.gradient_norm() / kCount, expected.norms[index]);
    sharded.step(*optimizer, testing::kMeshLearningRate, 1 / kCount);
  }
  const at::Tensor weights = sharded.gather_weights();
  if (own.replicas->rank() != 0) return difference;
  for (const FlatEntry& entry : sharded.layout().entries) {
    const at::Tensor held = FlatParameters::view(weights, entry).to(at::kDouble);
    const at::Tensor& whole = expected.weights.at(entry.name);
    const auto found = std::ranges::find(roled, entry.name, &nn::RoledParameter::name);
    const nn::ParameterPart& part = found->part;
    const at::Tensor there = part.dim < 0 ? whole : whole.narrow(part.dim, part.begin, part.size);
    const double here = (held - there).abs().max().item<double>() /
                        std::max(whole.abs().max().item<double>(), 1e-2);
    if (!(here <= difference.weights)) difference.weights = here;
  }
  return difference;
}

// f32 rounds by 2^-24, 6e-8, at each of some ten operations on the way from a weight to its
// gradient, whose errors add up at random; 20 updates of a fiftieth of a gradient each add up to
// less than a weight is large, and so small ones do not make the descent unstable, which would
// multiply errors. bf16 computes with 2^-9, 2e-3.
void expect_close(const Difference& difference, const Layout& layout, const std::string& what) {
  const double unit = layout.dtype == at::kFloat ? 1e-6 : 1e-2;
  EXPECT_LT(difference.losses, unit) << what;
  EXPECT_LT(difference.norms, 5 * unit) << what;
  EXPECT_LT(difference.weights, 10 * unit) << what;
}

void expect_trains_as_one_rank(const std::string& family, const Layout& layout) {
  const testing::TrainedSteps& expected = trained_whole(family, kSteps);
  run_threads(layout.dp * layout.ep * layout.cp * layout.tp, [&](Group& world) {
    expect_close(train_sharded(world, family, layout, expected), layout,
                 fmt::format("{}, {}, rank {}", family, layout.text(), world.rank()));
  });
}

TEST(MeshSharded, EveryStageTrainsTheModelOfOneRank) {
  for (const int stage : {0, 1, 2, 3}) {
    for (const bool sequence : {false, true}) {
      expect_trains_as_one_rank("gpt2", {2, 2, stage, sequence});
      expect_trains_as_one_rank("uneven", {1, 3, stage, sequence});
      expect_trains_as_one_rank("llama", {2, 4, stage, sequence});
    }
    expect_trains_as_one_rank("uneven", {4, 2, stage, true});
  }
}

// Every mesh of up to 8 ranks, each with one of the stages.
TEST(MeshStages, EveryMeshTrainsTheModelOfOneRank) {
  int stage = 0;
  for (const int ranks : {2, 4, 8}) {
    for (const testing::MeshRun& run : testing::meshes_of(ranks)) {
      Layout layout{run.dp, run.tp, stage++ % 4, run.sequence, at::kFloat, run.recompute};
      layout.ep = run.ep;
      layout.cp = run.cp;
      layout.cp_method = run.cp_method;
      expect_trains_as_one_rank(run.family, layout);
    }
  }
}

TEST(MeshSharded, InBf16) {
  for (const int stage : {0, 3}) {
    expect_trains_as_one_rank("gpt2", {2, 2, stage, stage == 3, at::kBFloat16});
    expect_trains_as_one_rank("llama", {1, 4, stage, stage == 0, at::kBFloat16});
  }
}

// What all ranks have must stay the same on all of them, to the bit, though weights are rounded by
// chance, and moments to 8 bits: with a vocabulary, MLPs and heads that are cut unevenly.
TEST(MeshSharded, WhatSeveralRanksHaveStaysEqual) {
  struct Case {
    const char* family;
    int tp;
    bool sequence;
    const char* state;
  };
  for (const auto& [family, tp, sequence, state] : {Case{"gpt2", 3, false, "f32"},
                                                    {"gpt2", 2, true, "8bit"},
                                                    {"llama", 4, false, "8bit"},
                                                    {"uneven", 2, false, "8bit"}}) {
    run_threads(tp, [&, family = family, sequence = sequence, state = state](Group& world) {
      const Mesh mesh({{"tp", world.size()}});
      const auto dp = world.split(mesh, "dp"), tp_group = world.split(mesh, "tp");
      nn::Transformer model = testing::transformer_without_memory(testing::mesh_config(family));
      const TensorParallel cut = parallelize(*model, *tp_group, {.sequence = sequence});
      nn::initialize(*model, 11);
      const auto roled = nn::parameters_with_roles(*model);
      ShardedModel sharded(*model, *dp,
                           {.dtype = at::kBFloat16, .micro_batches = 2, .parts = cut.parts()});
      const auto optimizer =
          optim::make_optimizer({.name = "adamw", .state = state}, sharded.space());
      for (std::int64_t m = 0; m < 10; ++m) {
        sharded.backward(
            sharded.forward([&] { return testing::loss_of_micro_batch(model, family, m); }));
        if (m % 2 == 0) continue;
        sharded.finish_gradients();
        sharded.step(*optimizer, 0.02, 0.5);
      }
      const at::Tensor weights = sharded.gather_weights();
      for (const FlatEntry& entry : sharded.layout().entries) {
        const auto found = std::ranges::find(roled, entry.name, &nn::RoledParameter::name);
        if (found->part.dim >= 0) continue;
        const at::Tensor own = FlatParameters::view(weights, entry).clone();
        const at::Tensor computes = found->tensor.detach().to(at::kFloat);
        for (const at::Tensor& value : {own, computes}) {
          const at::Tensor first = value.clone();
          world.broadcast(buffer_of_tensor(first), 0);
          EXPECT_TRUE(first.equal(value)) << family << " " << state << ", " << entry.name;
        }
      }
    });
  }
}

TEST(MeshSharded, RefusesOptimizersThatNeedWholeParameters) {
  run_threads(2, [](Group& world) {
    const Mesh mesh({{"tp", 2}});
    const auto dp = world.split(mesh, "dp");
    nn::Transformer model = testing::transformer_without_memory(testing::mesh_config("gpt2"));
    const TensorParallel cut = parallelize(*model, world);
    nn::initialize(*model, 11);
    ShardedModel sharded(*model, *dp, {.micro_batches = 1, .parts = cut.parts()});
    for (const std::string name : {"lamb", "muon", "adafactor"}) {
      const std::string refusal =
          testing::failure_of([&] { optim::make_optimizer({.name = name}, sharded.space()); });
      EXPECT_NE(refusal.find("ConfigError: optimizer.name is " + name), std::string::npos)
          << refusal;
      EXPECT_NE(refusal.find("this rank has a part: take one of sgd"), std::string::npos)
          << refusal;
    }
  });
}

TEST(MeshSharded, RecomputesWhatItDoesNotKeep) {
  for (const auto recompute : {nn::Recompute::kActivations, nn::Recompute::kBlocks}) {
    for (const int stage : {1, 3}) {
      expect_trains_as_one_rank("uneven", {2, 2, stage, true, at::kFloat, recompute});
    }
  }
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Models with f16 parameters: f32 masters, f32 sums of gradients, and what the loss scale is for.
// They compute in f32 inside, since LibTorch 1.13 has no f16 products on a CPU; their gradients are
// f16, and that is what is tested.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/base/error.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/optim/loss_scale.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/data/replica.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme {
namespace {

using testing::run_threads;

constexpr std::int64_t kMicroBatches = 4;
constexpr std::int64_t kInputs = 7;

// Each value another one, in [-0.5, 0.5].
at::Tensor formula(at::IntArrayRef sizes, double phase) {
  const at::Tensor count = torch::arange(c10::multiply_integers(sizes), torch::kDouble);
  return (torch::sin(count * 1.37 + phase) * 0.5).reshape(sizes).to(at::kFloat);
}

// A net of two layers.
struct Net : torch::nn::Module {
  Net() {
    first = register_parameter("first", formula({13, kInputs}, 0.3));
    second = register_parameter("second", formula({1, 13}, 1.9));
  }
  at::Tensor forward(const at::Tensor& x) const {
    const at::Tensor hidden = torch::tanh(x.matmul(first.to(at::kFloat).t()));
    return hidden.matmul(second.to(at::kFloat).t());
  }
  at::Tensor first, second;
};

// The loss of a micro-batch: the squares of what a linear target is missed by.
at::Tensor loss_of(const Net& net, std::int64_t step, std::int64_t m) {
  const at::Tensor x = formula({5, kInputs}, static_cast<double>(step * kMicroBatches + m));
  return (net.forward(x) - x.sum(1, true)).square().mean();
}

struct TrainOptions {
  at::ScalarType dtype = at::kHalf;
  int stage = 1;
  double loss_factor = 1;                         // gradients are that much larger
  std::optional<optim::LossScaleConfig> scale{};  // none: f16 as it is
  std::int64_t steps = 40;
  bool offload = false;
};

struct Trained {
  std::vector<double> losses;  // of this rank, before loss_factor
  std::vector<double> norms;   // of the summed gradient, as it came; -1: not finite
  std::int64_t overflows = 0;
  at::Tensor weights;  // on rank 0
};

Trained train(Group& group, const TrainOptions& run) {
  Net net;
  ShardedModel sharded(net, group,
                       {.stage = run.stage,
                        .dtype = run.dtype,
                        .micro_batches = kMicroBatches,
                        .offload = run.offload});
  // No epsilon: updates do not depend on the size of gradients.
  const auto optimizer = optim::make_optimizer(
      {.name = "adamw", .epsilon = 1e-30, .weight_decay = 0}, sharded.space());
  optim::LossScale scale(
      run.scale.value_or(optim::LossScaleConfig{.initial = 1, .growth_interval = 0}));
  Trained result;
  for (std::int64_t step = 0; step < run.steps; ++step) {
    double sum = 0;
    for (const std::int64_t m : sharded.micro_batches()) {
      const at::Tensor loss = sharded.forward([&] { return loss_of(net, step, m); });
      sharded.backward(scale.scaled(loss * run.loss_factor));
      sum += loss.item<double>();
    }
    result.losses.push_back(sum);
    sharded.finish_gradients();
    const double norm = sharded.gradient_norm();
    const double unscale = scale.inverse();
    if (scale.update(norm)) {
      sharded.step(*optimizer, 0.02, unscale * optim::clip_scale(norm * unscale, 1.0));
    } else {
      sharded.drop_gradients();
    }
    result.norms.push_back(std::isfinite(norm) ? norm : -1);
  }
  result.overflows = scale.state().overflows;
  result.weights = sharded.gather_weights();
  if (group.rank() == 0) result.weights = result.weights.clone();
  return result;
}

Trained train_alone(const TrainOptions& run) {
  Trained result;
  run_threads(1, [&](Group& group) { result = train(group, run); });
  return result;
}

// Mean loss of the last steps: single ones differ by their samples.
double last_loss(const Trained& trained) {
  double sum = 0;
  for (std::size_t i = trained.losses.size() - 8; i < trained.losses.size(); ++i) {
    sum += trained.losses[i];
  }
  return sum / 8;
}

constexpr double kSmall = 1e-9;  // gradients far below f16's smallest number, 6e-8
constexpr double kLarge = 1e6;   // and above its largest, 65504

TEST(HalfPrecision, WithoutAScaleSmallGradientsAreLost) {
  const Trained small = train_alone({.loss_factor = kSmall});
  for (const double norm : small.norms) EXPECT_EQ(norm, 0);
  EXPECT_GT(last_loss(small), 0.5 * small.losses.front()) << "it cannot have learned";
}

TEST(HalfPrecision, WithoutAScaleLargeGradientsOverflow) {
  const Trained large =
      train_alone({.loss_factor = kLarge,
                   .scale = optim::LossScaleConfig{
                       .initial = 1, .growth_interval = 0, .max_consecutive = 100}});
  for (const double norm : large.norms) EXPECT_EQ(norm, -1);
  EXPECT_EQ(large.overflows, 40);
}

TEST(HalfPrecision, WithAScaleTheLossFallsAsInF32) {
  for (const double factor : {kSmall, 1.0, kLarge}) {
    const Trained exact = train_alone({.dtype = at::kFloat, .loss_factor = factor, .steps = 60});
    ASSERT_LT(last_loss(exact), 0.1 * exact.losses.front());
    // 2^40: the first steps overflow, and the scale finds itself.
    const optim::LossScaleConfig scale{
        .initial = 0x1p40, .growth_interval = 20, .minimum = 0x1p-20};
    const Trained half = train_alone({.loss_factor = factor, .scale = scale, .steps = 60});
    if (factor > kSmall) {
      EXPECT_GT(half.overflows, 1) << factor;
    }
    EXPECT_LT(last_loss(half), 0.2 * half.losses.front()) << factor;
  }
}

// Bit for bit, since gradients are summed in f32 in one order.
TEST(HalfPrecision, EveryStageTrainsTheSameModelOnAnyNumberOfRanks) {
  const TrainOptions run{.scale = optim::LossScaleConfig{.initial = 0x1p24, .growth_interval = 7}};
  const Trained expected = train_alone(run);
  EXPECT_GT(expected.overflows, 0);
  EXPECT_LT(expected.overflows, 20);
  for (const int stage : {0, 1, 2, 3}) {
    for (const int ranks : {1, 2, 4}) {
      run_threads(ranks, [&](Group& group) {
        for (const bool offload : {false, true}) {
          TrainOptions here = run;
          here.stage = stage;
          here.offload = offload;
          const Trained result = train(group, here);
          const std::string where =
              fmt::format("stage {}, {} ranks, offload {}", stage, ranks, offload);
          EXPECT_EQ(result.norms, expected.norms) << where;
          EXPECT_EQ(result.overflows, expected.overflows) << where;
          if (group.rank() == 0) {
            EXPECT_TRUE(result.weights.equal(expected.weights)) << where;
          }
        }
      });
    }
  }
}

// Updates below half of f16's spacing add up in the masters.
TEST(HalfPrecision, MastersAreF32AndCopiesAreRoundedToNearest) {
  run_threads(2, [&](Group& group) {
    Net net;
    ShardedModel sharded(net, group, {.stage = 1, .dtype = at::kHalf, .micro_batches = 2});
    EXPECT_EQ(net.first.scalar_type(), at::kHalf);
    const at::Tensor whole = formula({sharded.layout().size}, 0.7);
    sharded.set_weights(whole);
    const auto first = net.first.detach().reshape({-1});
    EXPECT_TRUE(first.equal(
        whole.narrow(0, sharded.layout().entries[0].offset, first.numel()).to(at::kHalf)));
    const at::Tensor gathered = sharded.gather_weights();
    if (group.rank() == 0) {
      EXPECT_TRUE(gathered.equal(whole));
    }
  });
}

// 40000 + 2 x 40000 is beyond f16, and f16 has no number between 2048 and 2050.
TEST(HalfPrecision, ReplicasSumInF32) {
  struct Two : torch::nn::Module {
    Two() { values = register_parameter("values", torch::zeros({2}, at::kHalf)); }
    at::Tensor values;
  };
  run_threads(3, [](Group& group) {
    Two module;
    Replica replica = replicate(module, group, {.micro_batches = 3});
    const double rank = group.rank();
    const at::Tensor factors = torch::tensor({rank == 0 ? 40000.0 : 80000.0 / 2, 2048.0 - rank});
    replica.backward((module.values.to(at::kFloat) * factors.to(at::kFloat)).sum());
    replica.finish_gradients();
    const at::Tensor gradient = module.values.grad();
    EXPECT_EQ(gradient.scalar_type(), at::kFloat);
    EXPECT_FLOAT_EQ(gradient[0].item<float>(), 40000.0F);
    EXPECT_FLOAT_EQ(gradient[1].item<float>(), 2047.0F);
  });
}

TEST(HalfPrecision, OtherDtypesAreRefused) {
  run_threads(1, [](Group& group) {
    Net net;
    EXPECT_THROW(ShardedModel(net, group, {.dtype = at::kDouble}), ConfigError);
  });
}

}  // namespace
}  // namespace trireme

// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ShardedModel with offload. On the CPU the weights that compute are other memory than the host's,
// and all copies are made, so that what is true there must be true of a GPU, but for its
// arithmetic.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/devices.h"
#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "tests/support/sharded_training.h"
#include "trireme/optim/optimizer.h"
#include "trireme/parallel/data/replica.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::failure_of;
using ::testing::HasSubstr;
using testing::run_sharded;
using testing::run_threads;
using testing::ShardedResult;

ShardedResult run_alone(const std::string& family, const testing::ShardedRun& run,
                        at::ScalarType dtype) {
  ShardedResult result;
  run_threads(1, [&](Group& group) { result = run_sharded(group, family, run, dtype); });
  return result;
}

TEST(Offload, EveryStageTrainsTheSameModelAsWithout) {
  for (const std::string family : {"gpt2", "llama"}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const ShardedResult expected = run_alone(family, {}, dtype);
      EXPECT_GT(expected.norms.back(), 0.0);
      for (const int stage : {0, 1, 2, 3}) {
        for (const int ranks : {1, 2, 4}) {
          run_threads(ranks, [&](Group& group) {
            const ShardedResult result =
                run_sharded(group, family, {.stage = stage, .offload = true}, dtype);
            expect_same_training(result, expected, group.rank(),
                                 fmt::format("{} stage {}, {} ranks, {}", family, stage, ranks,
                                             c10::toString(dtype)));
          });
        }
      }
    }
  }
}

TEST(Offload, NeitherRecomputationNorPrefetchChangesAnything) {
  const ShardedResult expected = run_alone("llama", {}, at::kFloat);
  for (const int prefetch : {0, 1, 3}) {
    for (const auto recompute : {nn::Recompute::kNone, nn::Recompute::kBlocks}) {
      run_threads(2, [&](Group& group) {
        const ShardedResult result =
            run_sharded(group, "llama",
                        {.stage = 3, .recompute = recompute, .prefetch = prefetch, .offload = true},
                        at::kFloat);
        expect_same_training(result, expected, group.rank(), fmt::format("prefetch {}", prefetch));
      });
    }
  }
}

struct Spread {
  int stage;
  int ranks;
  int shard_ranks;
  std::int64_t micro_batches;
};

// Three ranks, and steps of several rounds: 28 micro-batches of two copies are 8, 4 and 2 each.
const std::vector<Spread> kSpreads = {{0, 3, 0, 6},  {1, 3, 0, 3},  {2, 3, 0, 3},  {1, 4, 2, 8},
                                      {2, 4, 2, 8},  {3, 4, 2, 28}, {1, 4, 2, 28}, {1, 6, 2, 12},
                                      {3, 6, 2, 12}, {0, 2, 0, 14}};

// And a rank sends what it does without.
TEST(Offload, CopiesAndRoundsTrainTheSameModelAsWithout) {
  for (const Spread& spread : kSpreads) {
    const testing::ShardedRun run{.stage = spread.stage,
                                  .micro_batches = spread.micro_batches,
                                  .shard_ranks = spread.shard_ranks,
                                  .steps = 2};
    run_threads(spread.ranks, [&](Group& group) {
      const ShardedResult expected = run_sharded(group, "gpt2", run, at::kBFloat16);
      testing::ShardedRun offloaded = run;
      offloaded.offload = true;
      const ShardedResult result = run_sharded(group, "gpt2", offloaded, at::kBFloat16);
      const std::string what =
          fmt::format("stage {}, {} ranks, {} to a copy, {} micro-batches, rank {}", spread.stage,
                      spread.ranks, spread.shard_ranks, spread.micro_batches, group.rank());
      expect_same_training(result, expected, group.rank(), what);
      EXPECT_EQ(result.across, expected.across) << what;
      // But for which order buckets go in: 8 bytes for each of them, and for the matrix that leaves
      // early.
      EXPECT_NEAR(static_cast<double>(result.inside), static_cast<double>(expected.inside), 400)
          << what;
    });
  }
}

// A weight that the model has under two names, one of which is a unit's; one without part in the
// loss; one that is frozen.
struct Oddities : torch::nn::Module {
  Oddities() {
    const auto values = [](std::int64_t first, std::int64_t rows) {
      return testing::formula_samples(first, rows, 19, at::kFloat) * 0.3;
    };
    tied = register_parameter("tied", values(1, 19));
    bias = register_parameter("bias", values(31, 1)[0]);
    frozen = register_parameter("frozen", values(47, 19), /*requires_grad=*/false);
    unit = register_module("unit", std::make_shared<torch::nn::Module>());
    unit->register_parameter("tied", tied);
    unused = unit->register_parameter("unused", values(83, 7));
    inner = unit->register_parameter("inner", values(97, 19));
    means = register_buffer("means", values(131, 1));
  }
  at::Tensor loss(ShardedModel& sharded, std::int64_t first) {
    const at::Tensor x = testing::formula_samples(first, 5, 19, at::kFloat).to(tied.device());
    const auto like_weights = [&](const at::Tensor& y) { return y.to(tied.scalar_type()); };
    const at::Tensor hidden = like_weights(x).matmul(frozen) + bias;
    const at::Tensor y = sharded.run(*unit, hidden.tanh(), [&](const at::Tensor& h) {
      return h.matmul(tied).tanh().matmul(inner);
    });
    return (y.to(at::kFloat) - x.flip({1}) + means).square().mean();
  }
  at::Tensor tied, bias, frozen, unused, inner, means;
  std::shared_ptr<torch::nn::Module> unit;
};

struct OddRun {
  std::vector<double> losses;  // of this rank, and norms
  at::Tensor weights;          // on rank 0
  at::Tensor frozen;
};

// Of three steps the second is not taken.
OddRun train_oddities(Group& group, int stage, at::ScalarType dtype, bool offload) {
  OddRun run;
  Oddities model;
  if (group.rank() == 1) model.frozen.add_(1);  // rank 0's counts
  ShardedModel sharded(model, group,
                       {.stage = stage,
                        .dtype = dtype,
                        .micro_batches = 4,
                        .units = {model.unit.get()},
                        .offload = offload});
  const auto adamw = optim::make_optimizer({.name = "adamw", .weight_decay = 0.1}, sharded.space());
  for (std::int64_t step = 0; step < 3; ++step) {
    for (const std::int64_t m : sharded.micro_batches()) {
      const at::Tensor loss =
          sharded.forward([&] { return model.loss(sharded, 400 * step + 100 * m); });
      sharded.backward(loss, 1.0 + static_cast<double>(m));
      run.losses.push_back(loss.item<double>());
    }
    sharded.finish_gradients();
    EXPECT_THAT(sharded.report().unused, ElementsAre("unit.unused"));
    EXPECT_EQ(sharded.report().weight, 1 + 2 + 3 + 4);
    run.losses.push_back(sharded.gradient_norm());
    if (step == 1) {
      sharded.drop_gradients();
    } else {
      sharded.step(*adamw, 0.02, 0.1);
    }
  }
  run.weights = sharded.gather_weights();
  run.frozen = model.frozen;
  return run;
}

// Tied weights belong to the unit, as the layout has it, and are used there alone.
TEST(Offload, TiedUnusedAndFrozenParametersAreAsWithout) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int stage : {0, 1, 2, 3}) {
      run_threads(2, [&](Group& group) {
        const OddRun expected = train_oddities(group, stage, dtype, false);
        const OddRun result = train_oddities(group, stage, dtype, true);
        const std::string what = fmt::format("stage {}, {}", stage, c10::toString(dtype));
        EXPECT_EQ(result.losses, expected.losses) << what;
        EXPECT_TRUE(result.frozen.equal(expected.frozen)) << what;
        if (group.rank() == 0) {
          EXPECT_TRUE(result.weights.equal(expected.weights)) << what;
        }
      });
    }
  }
}

class OffloadOnDevice : public ::testing::TestWithParam<c10::Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, OffloadOnDevice, ::testing::ValuesIn(testing::devices()),
                         testing::device_name);

// All layouts give the same bits on a device too, and follow the CPU.
TEST_P(OffloadOnDevice, LayoutsAgreeAndFollowTheCpu) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const ShardedResult on_cpu = run_alone("llama", {}, dtype);
    const ShardedResult expected =
        run_alone("llama", {.stage = 1, .offload = true, .device = GetParam()}, dtype);
    const double tolerance = dtype == at::kFloat ? 1e-4 : 3e-2;
    for (const auto& [when, loss] : on_cpu.losses) {
      EXPECT_NEAR(expected.losses.at(when), loss, tolerance * loss);
    }
    for (const int stage : {0, 2, 3}) {
      // Ranks that are threads want a device each.
      run_threads(GetParam().is_cpu() ? 2 : 1, [&](Group& group) {
        const ShardedResult result = run_sharded(
            group, "llama", {.stage = stage, .offload = true, .device = GetParam()}, dtype);
        expect_same_training(result, expected, group.rank(), fmt::format("stage {}", stage));
      });
    }
  }
}

TEST(Offload, AFailureEndsAllRanksByName) {
  for (const int stage : {0, 1, 2, 3}) {
    run_threads(3, [&](Group& group) {
      testing::Chain chain(3, at::kFloat);
      ShardedModel sharded(chain, group, {.stage = stage, .offload = true});
      const auto run_step = [&](bool fails) {
        testing::run_gradients(sharded, chain, fails);
        sharded.drop_gradients();
      };
      run_step(false);
      group.barrier();
      const std::string error = failure_of([&] {
        run_step(group.rank() == 1);
        run_step(false);
      });
      EXPECT_THAT(error, HasSubstr("out of luck")) << "stage " << stage;
      if (group.rank() != 1) {
        EXPECT_THAT(error, AllOf(HasSubstr("CommError"), HasSubstr("rank 1 left")));
      }
    });
  }
}

// A model on a device is not trained by chance: with offload, or not at all.
TEST(Offload, ModelsOnDevicesWithoutItAreRefused) {
  run_threads(1, [](Group& group) {
    const at::TensorOptions elsewhere = at::TensorOptions().device(at::kMeta);
    torch::nn::Module model;
    model.register_parameter("weight", torch::ones({5, 7}, elsewhere));
    for (const int stage : {0, 1, 2, 3}) {
      EXPECT_THAT(failure_of([&] { const ShardedModel sharded(model, group, {.stage = stage}); }),
                  AllOf(HasSubstr("ConfigError"), HasSubstr("parameters lie on meta"),
                        HasSubstr("ShardOptions::offload")));
    }
    EXPECT_THAT(failure_of([&] {
                  const ShardedModel sharded(model, group, {.stage = 2, .offload = true});
                }),
                AllOf(HasSubstr("ConfigError"), HasSubstr("meta")));
    EXPECT_THAT(
        failure_of([&] { replicate(model, group, {}); }),
        AllOf(HasSubstr("ConfigError"), HasSubstr("parameters lie on meta"), HasSubstr("offload")));
  });
}

}  // namespace
}  // namespace trireme
